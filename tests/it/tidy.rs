//! Holds the README, the settings and the source together, so that none of them can change alone.

use crate::support::Dyno;
use crate::support::raw::{head, http};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What one can see of a file without losing the thread; `mod tests` at its end does not count.
const LINES: usize = 200;

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file in a directory and below, as the README names it.
fn files(dir: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&dir)).expect("a directory") {
            let path = dir.join(entry.expect("an entry").file_name());
            if Path::new(ROOT).join(&path).is_dir() {
                open.push(path);
            } else {
                found.insert(path.display().to_string());
            }
        }
    }
    found
}

fn sources() -> impl Iterator<Item = (String, String)> {
    let rust = files("src")
        .into_iter()
        .filter(|path| path.ends_with(".rs"));
    rust.map(|path| (path.clone(), read(path)))
}

/// A source file without its `mod tests`.
fn program(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

/// The rows of the README's table that begins with this head, each a list of cells.
fn table(head: &str) -> Vec<Vec<String>> {
    let readme = read("README.md");
    let (_, below) = readme
        .split_once(&format!("\n| {head} |"))
        .unwrap_or_else(|| panic!("no table {head}"));
    let rows = below
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = |row: &str| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_string())
            .collect()
    };
    rows.map(cells).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

// ---- the README and the files

#[test]
fn the_readme_names_every_file_of_the_program_in_its_reading_order() {
    let rows = table("file | holds");
    let named: Vec<&str> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let named_once: BTreeSet<String> = named.iter().map(|path| path.to_string()).collect();
    assert_eq!(
        named.len(),
        named_once.len(),
        "a file stands twice: {named:?}"
    );
    let there: BTreeSet<String> = files("src").union(&files("public")).cloned().collect();
    assert_eq!(named_once, there);
}

#[test]
fn every_path_and_link_in_the_readme_leads_somewhere() {
    let readme = read("README.md");
    let places = ["src/", "public/", "tests/", "benches/", "fuzz/", ".ci/"];
    let names = [
        "app.json",
        "Procfile",
        ".env.example",
        "LICENSE",
        "Cargo.toml",
    ];
    let paths = quoted(&readme).filter_map(|text| text.split_whitespace().next());
    let mut paths: Vec<&str> = paths
        .filter(|path| names.contains(path) || places.iter().any(|place| path.starts_with(place)))
        .collect();
    let links = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    paths.extend(links.filter(|link| !link.starts_with("https://")));
    assert!(paths.len() > 50, "only {paths:?}");
    for path in paths {
        assert!(Path::new(ROOT).join(path).exists(), "{path} does not exist");
    }
}

#[test]
fn every_command_in_the_readme_can_be_run() {
    let readme = read("README.md");
    let blocks = readme.lines().filter_map(|line| line.strip_prefix("    "));
    let inline = quoted(&readme).filter(|text| text.contains(' '));
    let commands: Vec<Vec<&str>> = blocks
        .chain(inline)
        .flat_map(|line| line.split("&&"))
        .map(|command| command.split_whitespace().collect())
        .collect();
    let manifest = read("Cargo.toml");
    let mut known = 0;
    for command in &commands {
        known += 1;
        match command[..] {
            ["cargo", "run" | "build"] | ["cargo", "build", "--release"] => {}
            ["cargo", "run", "--release", "--example", name, ..] => {
                assert!(
                    manifest.contains(&format!("[[example]]\nname = \"{name}\"")),
                    "{name}"
                );
            }
            ["cargo", "bench", ..] => assert!(manifest.contains("[[bench]]"), "{command:?}"),
            ["tests/run", name] => drop(read(format!("tests/it/{name}.rs"))),
            [script, ..] if script.starts_with("tests/") => {
                let data = fs::metadata(Path::new(ROOT).join(script)).expect(script);
                assert!(
                    data.permissions().mode() & 0o111 != 0,
                    "{script} cannot be run"
                );
            }
            ["cp", from, _] => drop(read(from)),
            _ => known -= 1,
        }
    }
    assert!(known >= 6, "{known} of {commands:?}");
    assert!(
        !commands.iter().any(|c| c[0] == "cargo" && c.len() < 2),
        "{commands:?}"
    );
}

#[test]
fn whoever_pushes_by_hand_gets_what_the_button_gives() {
    let app: serde_json::Value = serde_json::from_str(&read("app.json")).expect("app.json is JSON");
    let word = |pointer: &str| {
        app.pointer(pointer)
            .and_then(|v| v.as_str())
            .expect("text")
            .to_string()
    };
    let verify = word("/env/REDIS_TLS_VERIFY/value");
    let lines = [
        format!(
            "    heroku create --buildpack {}\n",
            word("/buildpacks/0/url")
        ),
        format!("    heroku addons:create {}\n", word("/addons/0")),
        format!("    heroku config:set REDIS_TLS_VERIFY={verify}\n"),
        "    git push heroku main\n".to_string(),
    ];
    for line in lines {
        assert!(read("README.md").contains(&line), "{line}");
    }
}

// ---- settings

/// Name and value of each line of `.env.example` that a person could want, as `heroku local` reads them.
fn examples() -> BTreeMap<String, String> {
    let text = read(".env.example");
    let setting = |line: &str| {
        let (name, value) = line.strip_prefix("# ")?.split_once('=')?;
        let named = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        named.then(|| (name.to_string(), value.trim_matches('"').to_string()))
    };
    text.lines().filter_map(setting).collect()
}

#[test]
fn the_settings_that_are_read_are_those_in_the_readme_and_in_the_example() {
    let source = read("src/config.rs");
    let reads = source
        .split("read(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let reads: BTreeSet<String> = reads.map(str::to_string).collect();
    let rows = table("variable | without it");
    let told: BTreeSet<String> = rows
        .iter()
        .flat_map(|row| quoted(&row[0]))
        .map(str::to_string)
        .collect();
    assert_eq!(told, reads);
    assert_eq!(examples().into_keys().collect::<BTreeSet<_>>(), reads);
    let elsewhere =
        sources().filter(|(path, text)| path != "src/config.rs" && text.contains("env::var"));
    assert_eq!(
        elsewhere.map(|(path, _)| path).collect::<Vec<_>>(),
        [""; 0],
        "nobody else reads the environment"
    );

    // The example says the same of each default, in the sentence before the line.
    let example = read(".env.example").replace("\n# ", " ");
    for row in rows {
        for name in quoted(&row[0]) {
            let (before, _) = example
                .split_once(&format!(" {name}="))
                .expect("checked above");
            let sentence = before.rsplit('\n').next().unwrap_or_default();
            let (_, default) = sentence.rsplit_once("ithout ").expect("a default");
            let default = default.split_once(", ").expect("without it, what").1;
            assert!(default.starts_with(&row[1]), "{name}: {default:?}");
        }
    }
}

#[tokio::test]
async fn every_example_of_a_setting_is_one_that_boots() {
    let examples = examples();
    let vars: Vec<(&str, &str)> = examples
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    assert!(examples["PORT"].parse::<u16>().is_ok());
    let dyno = Dyno::start(&vars).await; // on a port of its own
    let page = http(dyno.addr(), &head("GET /", &dyno.host(), &[])).await;
    assert_eq!(page.status, 200, "{}", dyno.log());
}

// ---- figures

/// The value of a constant: a product of numbers, in seconds if it is a time.
fn constant(path: &str, name: &str) -> f64 {
    let source = read(path);
    let found = source
        .split_once(&format!("const {name}: "))
        .unwrap_or_else(|| panic!("no {name} in {path}"));
    let value = found
        .1
        .split(';')
        .next()
        .and_then(|rest| Some(rest.split_once(" = ")?.1));
    let value = value.expect("a constant has a value");
    let bare = value
        .replace("Duration::from_secs(", "")
        .replace("Duration::from_millis(", "")
        .replace(')', "");
    // A factor is a number, or another constant of the file.
    let number = |factor: &str| match factor.trim() {
        name if name.starts_with(char::is_alphabetic) => constant(path, name),
        digits => digits
            .replace('_', "")
            .parse::<f64>()
            .unwrap_or_else(|e| panic!("{name} = {value}: {e}")),
    };
    let product: f64 = bare.split('*').map(number).product();
    // A time that is a plain number says in its comment in what it counts.
    let above = found.0.trim_end_matches("pub ").lines().rev();
    let mut comment = above.take_while(|line| line.trim_start().starts_with("///"));
    let in_ms = value.contains("from_millis") || comment.any(|line| line.contains("in ms"));
    if in_ms { product / 1000.0 } else { product }
}

/// A figure in prose: `1,000 code points`, `8 KiB`, `2 minutes`, `250 ms`.
fn figure(text: &str) -> f64 {
    let mut words = text.split_whitespace();
    let number = words
        .next()
        .and_then(|word| word.replace(',', "").parse::<f64>().ok());
    let unit = words
        .next()
        .map(|word| word.trim_end_matches(['.', ',', ';']));
    let unit = match unit {
        Some("KiB") => 1024.0,
        Some("MiB") => 1024.0 * 1024.0,
        Some("ms") => 0.001,
        Some("min" | "minutes") => 60.0,
        Some("h" | "hours") => 3600.0,
        _ => 1.0,
    };
    number.unwrap_or_else(|| panic!("{text:?} does not begin with a number")) * unit
}

#[test]
fn the_limits_in_the_readme_are_those_of_the_program() {
    let rows = table("what | limit | constant");
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let words: Vec<&str> = quoted(&row[2]).collect();
        let (path, names) = words.split_first().expect("a file and its constants");
        let figures: Vec<&str> = row[1].split(", ").collect();
        assert_eq!(
            names.len(),
            figures.len(),
            "one figure for each constant: {row:?}"
        );
        for (name, text) in names.iter().zip(figures) {
            assert_eq!(figure(text), constant(path, name), "{row:?}");
        }
    }
}

/// What stands before and after a figure in a sentence, and the constant that it states.
const SAID: [(&str, &str, &str, &str); 10] = [
    ("a visible `tick` every ", " s;", "src/conn.rs", "PING"),
    ("a peer silent for ", " s is", "src/conn.rs", "SILENCE"),
    ("1012, spread over ", " s;", "src/beat.rs", "SPREAD"),
    (
        "each room at most ",
        " messages",
        "src/history.rs",
        "MAX_MESSAGES",
    ),
    (" messages and ", " KiB,", "src/history.rs", "MAX_BYTES"),
    (
        "Redis about as many for ",
        " hours",
        "src/bus/redis.rs",
        "LOG_LIFE_S",
    ),
    ("and get the last ", ".", "src/history.rs", "NEWCOMER"),
    (
        "recognised by its cid for ",
        " minutes",
        "src/bus/redis.rs",
        "CID_LIFE_S",
    ),
    ("a restart and a kill by ", " s.", "src/bus.rs", "LEASE"),
    (
        "limit of open files less ",
        " |",
        "src/config.rs",
        "RESERVED",
    ),
];

#[test]
fn the_figures_in_the_readmes_sentences_are_those_of_the_program() {
    let readme = read("README.md").replace('\n', " ");
    let said = |before: &str, after: &str| {
        let rest = readme
            .split_once(before)
            .unwrap_or_else(|| panic!("no {before:?}"))
            .1;
        let value = rest
            .split_once(after)
            .unwrap_or_else(|| panic!("no {after:?}"))
            .0;
        figure(&format!("{value}{after}"))
    };
    for (before, after, path, name) in SAID {
        assert_eq!(
            said(before, after),
            constant(path, name),
            "{before}…{after}"
        );
    }
    let upkeep = |name| constant("src/bus/upkeep.rs", name);
    let gone = constant("src/bus.rs", "LEASE") + upkeep("RENEW") + upkeep("READ_PAUSE");
    assert_eq!(said("is gone after ", " s at most"), gone);
    assert_eq!(
        said("| `TALK_PER_SECOND` | 2, and ", " at once |"),
        constant("src/bucket.rs", "BURST")
    );
    assert_eq!(
        constant("src/bus/local.rs", "CID_LIFE"),
        constant("src/bus/redis.rs", "CID_LIFE_S")
    );
}

#[test]
fn a_person_who_is_refused_is_told_the_limits_of_the_program() {
    let sentences = read("src/message.rs");
    for (before, path, name, after) in [
        ("\"Use 1 to ", "src/name.rs", "MAX_NAME", " letters"),
        ("\"Use 1 to ", "src/name.rs", "MAX_ROOM", " letters"),
        (
            "\"A message is ",
            "src/message.rs",
            "MAX_MESSAGE",
            " characters",
        ),
    ] {
        let sentence = format!("{before}{}{after}", constant(path, name));
        assert!(sentences.contains(&sentence), "{sentence}");
    }
}

#[test]
fn the_readme_is_long_enough_to_teach_and_short_enough_to_be_read() {
    let lines = read("README.md").lines().count();
    assert!((150..=200).contains(&lines), "{lines} lines");
}

// ---- the source

#[test]
fn no_file_of_the_program_is_too_long_to_keep_in_mind() {
    for (path, source) in sources() {
        let lines = program(&source).lines().count();
        assert!(lines <= LINES, "{path} has {lines} lines");
    }
}

#[test]
fn every_file_of_the_program_begins_by_saying_what_it_is() {
    for path in files("src") {
        let comment = if path.ends_with(".rs") { "//! " } else { "-- " };
        let begins = read(&path)
            .lines()
            .take(2)
            .any(|line| line.starts_with(comment));
        assert!(begins, "{path}");
    }
}

/// The modules that a file names by `crate::`, in code and not in comments.
fn imports(source: &str) -> BTreeSet<String> {
    let code: String = program(source)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        // One name, or the outermost names of a list in braces.
        let (mut depth, mut name) = (0, String::new());
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                c if depth < 2 && (c.is_alphanumeric() || c == '_') => name.push(c),
                ',' if depth == 1 => drop(found.insert(std::mem::take(&mut name))),
                ':' if depth == 1 => {
                    found.insert(std::mem::take(&mut name));
                }
                _ => {}
            }
            if depth == 0 && !(c.is_alphanumeric() || c == '_') {
                break;
            }
        }
        found.insert(name);
    }
    found
}

#[test]
fn imports_of_the_program_point_one_way() {
    // A file in a folder belongs to the module of that name: it is where that one goes on.
    let module = |path: &str| {
        path["src/".len()..]
            .split(['/', '.'])
            .next()
            .unwrap_or_default()
            .to_string()
    };
    let known: BTreeSet<String> = sources().map(|(path, _)| module(&path)).collect();
    let mut open: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, source) in sources() {
        let own = module(&path);
        let others = imports(&source)
            .into_iter()
            .filter(|name| known.contains(name) && *name != own);
        open.entry(own.clone()).or_default().extend(others);
    }
    let edges: usize = open.values().map(BTreeSet::len).sum();
    assert!(edges > 40, "the imports are understood: {open:?}");
    // Take away whoever needs nobody that is left, until nobody is.
    while let Some(leaf) = open
        .iter()
        .find(|(_, needs)| needs.is_empty())
        .map(|(name, _)| name.clone())
    {
        open.remove(&leaf);
        open.values_mut()
            .for_each(|needs| needs.retain(|need| *need != leaf));
    }
    assert!(open.is_empty(), "these go round in a circle: {open:#?}");
}

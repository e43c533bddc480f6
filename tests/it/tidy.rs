//! Checks that the README, the settings and the source agree: names, paths, commands and figures, not sentences.

use crate::support::raw::{head, http};
use crate::support::{Dyno, facts};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, iter::zip};

/// Lines of a source file, without its `mod tests`.
const MAX_LINES: usize = 300;

/// The folders that each folder of `src/` may import besides itself. Files at the top of `src/` may import
/// everything, and everything may import the small tools.
const MAY_IMPORT: [(&str, &[&str]); 5] = [
    ("web", &["chat", "socket", "protocol"]),
    ("chat", &["store", "socket", "protocol"]),
    ("store", &["protocol"]),
    ("socket", &["protocol"]),
    ("protocol", &[]),
];
const TOOLS: [&str; 2] = ["lock.rs", "log_throttle.rs"];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file in a directory and below.
fn files(dir: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root(dir)).unwrap_or_else(|e| panic!("{dir}: {e}")) {
        let path = format!("{dir}/{}", entry.expect(dir).file_name().display());
        match root(&path).is_dir() {
            true => found.extend(files(&path)),
            false => _ = found.insert(path),
        }
    }
    found
}

/// A source file without its `mod tests`.
fn program(path: &str) -> String {
    let source = read(path);
    let end = source.find("#[cfg(test)]\nmod tests");
    source[..end.unwrap_or(source.len())].to_string()
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The numbers in a text: `1,000 of 20` has 1000 and 20.
fn numbers(text: &str) -> Vec<f64> {
    let text = text.replace(',', "");
    let words = text.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The cells of each row of a document's table with this head.
fn table(document: &str, head: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let parts = text.split_once(&format!("\n| {head} |\n"));
    let (_, below) = parts.unwrap_or_else(|| panic!("{document} has no table {head}"));
    let rows = below.lines().map_while(|line| line.strip_prefix('|'));
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_string()).collect();
    rows.skip(1).map(cells).collect()
}

// ---- files, links and commands

#[test]
fn the_map_lists_every_source_file_once() {
    let rows = table("docs/ARCHITECTURE.md", "file | holds");
    let mut listed: Vec<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    listed.sort();
    let exist = &files("src") | &files("public");
    assert_eq!(listed, Vec::from_iter(&exist));
}

#[test]
fn links_and_paths_in_documents_exist() {
    let is_path = |word: &str| {
        let mut folders = "src/ public/ tests/ bin/ docs/ benches/ examples/ fuzz/ .ci/".split(' ');
        let mut endings = ".json .toml .md .example".split(' ');
        folders.any(|start| word.starts_with(start)) || endings.any(|end| word.ends_with(end))
    };
    let mut documents = files("docs");
    documents.retain(|path| path.ends_with(".md"));
    documents.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(String::from));
    for document in documents {
        let text = read(&document);
        for code in quoted(&text) {
            let path = code.split(' ').next().unwrap_or(code);
            let exists = !is_path(path) || root(path).exists();
            assert!(exists, "{document}: {path} does not exist");
        }
        for rest in text.split("](").skip(1) {
            let link = rest.split([')', '#']).next().unwrap_or(rest);
            let exists = link.contains("://") || root(&document).with_file_name(link).exists();
            assert!(exists, "{document}: {link} does not exist");
        }
    }
}

/// The commands in a document: indented lines and code between backticks, without settings before a command and without
/// the explanation after two spaces.
fn commands(document: &str) -> Vec<String> {
    let text = read(document);
    let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
    let lines = indented.chain(quoted(&text)).flat_map(str::lines);
    let commands = lines.flat_map(|line| line.split("&&")).map(|command| {
        let command = command.trim().split("  ").next().unwrap_or_default();
        let words = command.split(' ');
        let words = words.skip_while(|word| word.contains('=') && !word.starts_with('-'));
        words.collect::<Vec<_>>().join(" ")
    });
    commands.collect()
}

/// Whether a test has this name: a file's (`faults`), the beginning of a test's in a file (`faults::a_redis`) or in any.
fn selects_tests(name: &str) -> bool {
    let (file, test) = name.split_once("::").unwrap_or((name, ""));
    let test = test.rsplit("::").next().unwrap_or_default();
    let path = format!("tests/it/{file}.rs");
    match root(&path).exists() {
        true => read(&path).contains(&format!("fn {test}")),
        false => files("tests/it")
            .iter()
            .any(|path| read(path).contains(&format!("fn {name}"))),
    }
}

#[test]
fn tests_that_are_left_out_exist() {
    let script = read("tests/run");
    let skipped: Vec<&str> = script.split("--skip ").skip(1).collect();
    assert!(skipped.len() > 5);
    for name in skipped {
        let name = name.split([' ', ')', '\n']).next().unwrap_or_default();
        assert!(selects_tests(name), "tests/run leaves out {name}");
    }
}

#[test]
fn commands_in_documents_exist() {
    let (manifest, script) = (read("Cargo.toml"), read("tests/run"));
    let mut documents = files("docs");
    documents.retain(|path| path.ends_with(".md"));
    documents.extend(["README.md", "CONTRIBUTING.md"].map(String::from));
    for (document, command) in documents
        .iter()
        .flat_map(|document| commands(document).into_iter().map(move |c| (document, c)))
    {
        let exists = match command.split(' ').collect::<Vec<_>>()[..] {
            ["cargo", "run", "--release", "--example", name, ..]
            | ["cargo", "run", "--example", name, ..] => {
                root(&format!("examples/{name}.rs")).exists()
                    || manifest.contains(&format!("[[example]]\nname = \"{name}\""))
            }
            ["cargo", "bench", ..] => manifest.contains("[[bench]]"),
            ["cargo", ..] => ["run", "build", "build --release"].contains(&&command[6..]),
            ["tests/run", "quick"] => script.contains("= quick"),
            ["tests/run", "--browsers", "all"] => script.contains("--browsers all"),
            ["tests/run", name] => selects_tests(name),
            _ => true, // not a command, or one of another program
        };
        assert!(exists, "{document}: {command} cannot be run");
    }
    let commands = commands("README.md");
    let app: Value = serde_json::from_str(&read("app.json")).expect("app.json is JSON");
    let value = |pointer: &str| app.pointer(pointer).and_then(Value::as_str).expect("text");
    let verify = value("/env/REDIS_TLS_VERIFY/value");
    let policy = value("/addons/0/options/maxmemory_policy");
    for needed in [
        &format!("heroku create --buildpack {}", value("/buildpacks/0/url")),
        &format!("heroku addons:create {}", value("/addons/0/plan")),
        &format!("heroku redis:maxmemory --policy {policy}"),
        &format!("heroku config:set REDIS_TLS_VERIFY={verify}"),
        "git push heroku main",
        "cargo run",
        "bin/two-dynos",
        "tests/run",
        "tests/run quick",
    ] {
        let shown = commands.iter().any(|command| command == needed);
        assert!(shown, "the README lacks {needed}");
    }
    for script in ["bin/two-dynos", "tests/run"] {
        let permissions = root(script).metadata().expect(script).permissions();
        assert_ne!(permissions.mode() & 0o111, 0, "{script} cannot be run");
    }
}

/// The parts of a section that are the same in every language: the level of its heading, its commands, its links, and
/// all that stands between backticks, the last two in any order.
type Skeleton = (usize, Vec<String>, BTreeSet<String>, Vec<String>);

fn skeleton(document: &str) -> Vec<Skeleton> {
    let text = read(document).replace(".ja.md", ".md");
    let sections = text.split("\n#").map(|section| {
        let level = section.chars().take_while(|c| *c == '#').count();
        let commands = section.lines().filter(|line| line.starts_with("    "));
        let commands = commands.map(str::to_string).collect();
        let links = section.split("](").skip(1);
        let links = links.filter_map(|rest| Some(rest.split_once(')')?.0.to_string()));
        let mut codes: Vec<_> = quoted(section).into_iter().map(str::to_string).collect();
        codes.sort();
        (level, commands, links.collect(), codes)
    });
    sections.collect()
}

#[test]
fn readme_in_japanese_has_the_same_sections_commands_and_links() {
    let (english, japanese) = (skeleton("README.md"), skeleton("README.ja.md"));
    for (own, other) in zip(&english, &japanese) {
        assert_eq!(own, other, "README.md and README.ja.md");
    }
    assert_eq!(english.len(), japanese.len(), "sections");
}

// ---- settings

/// Comment and example value of each setting in `.env.example`. The comment's last sentence says the default.
fn examples() -> BTreeMap<String, (String, String)> {
    let text = read(".env.example");
    let paragraphs = text.trim_end().split("\n\n").skip(1);
    let settings = paragraphs.map(|paragraph| {
        let line = paragraph.rsplit_once("\n# ").expect(paragraph);
        let (name, value) = line.1.split_once('=').expect(paragraph);
        let value = value.trim_matches('"').to_string();
        (name.to_string(), (line.0.to_string(), value))
    });
    settings.collect()
}

#[test]
fn settings_in_source_readme_and_example_agree() {
    let (config, examples) = (read("src/config.rs"), examples());
    let reads = config.split("read(\"").skip(1);
    let reads: BTreeSet<_> = reads.filter_map(|rest| rest.split('"').next()).collect();
    let rows = table("README.md", "variable | without it");
    let listed = rows.iter().flat_map(|row| quoted(&row[0]));
    assert_eq!(BTreeSet::from_iter(listed), reads, "README");
    let named = examples.keys().map(String::as_str);
    assert_eq!(BTreeSet::from_iter(named), reads, ".env.example");

    let limits = limits();
    for row in &rows {
        for name in quoted(&row[0]) {
            let comment = examples[name].0.replace("\n# ", " ");
            let sentence = comment.trim_end_matches('.').rsplit(". ").next(); // the last one
            let words = sentence.expect(name).split(|c: char| !c.is_alphanumeric());
            let words = Vec::from_iter(words);
            let mut missing = quoted(&row[1]);
            missing.retain(|default| !words.contains(default));
            assert!(missing.is_empty(), ".env.example, {name}: no {missing:?}");
            let limit = match name {
                "MAX_CONNECTIONS" => "RESERVED",
                "TALK_PER_SECOND" => "BURST",
                _ => continue,
            };
            assert!(numbers(&row[1]).contains(&limits[limit]), "{name}: {limit}");
        }
    }
    for path in files("src").iter().filter(|path| *path != "src/config.rs") {
        let text = read(path);
        let program = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(!program.contains("env::var"), "{path} reads a setting");
    }
}

#[tokio::test]
async fn every_example_value_boots() {
    let examples = examples();
    let port = examples["PORT"].1.parse::<NonZeroU16>(); // the dyno below listens on another
    assert!(port.is_ok(), "{port:?}");
    for (name, (_, value)) in &examples {
        println!("{name}={value}"); // names the setting if the dyno does not start
        let dyno = Dyno::start(&[(name, value)]).await;
        let page = http(dyno.addr(), &head("GET /", &dyno.host(), &[])).await;
        assert_eq!(page.status, 200, "{}", dyno.log());
    }
}

// ---- limits

/// The value of a constant: a product of numbers and of constants of the same file; a time in seconds.
fn constant(path: &str, name: &str) -> f64 {
    let source = read(path);
    let found = source.split_once(&format!("const {name}: "));
    let (_, rest) = found.unwrap_or_else(|| panic!("no {name} in {path}"));
    let text = rest.split(';').next().unwrap_or(rest);
    let value = text.rsplit(['=', '(']).next().unwrap_or(text);
    let factors = value.trim_end_matches(')').split('*').map(str::trim);
    let number = |factor: &str| match factor.replace('_', "").parse::<f64>() {
        Ok(number) => number,
        Err(_) => constant(path, factor),
    };
    let in_ms = text.contains("from_millis") || name.ends_with("_MS");
    factors.map(number).product::<f64>() / if in_ms { 1000.0 } else { 1.0 }
}

/// A figure with its unit: `1,000 code points`, `8 KiB`, `2 minutes`, `250 ms`.
fn figure(text: &str) -> f64 {
    let number = numbers(text)[0];
    match text.split(' ').nth(1) {
        Some("KiB") => number * 1024.0,
        Some("MiB") => number * 1024.0 * 1024.0,
        Some("ms") => number / 1000.0,
        Some("min" | "minutes") => number * 60.0,
        Some("h" | "hours") => number * 3600.0,
        _ => number,
    }
}

/// The limits in the README by the names of their constants. Compares each with its constant.
fn limits() -> BTreeMap<String, f64> {
    let mut limits = BTreeMap::new();
    for row in table("README.md", "what | limit | constant") {
        let words = quoted(&row[2]);
        let (path, names) = words.split_first().expect("a file and its constants");
        let values: Vec<f64> = names.iter().map(|name| constant(path, name)).collect();
        let figures: Vec<f64> = row[1].split(", ").map(figure).collect();
        assert_eq!(figures, values, "README and constants: {row:?}");
        limits.extend(zip(names.iter().map(|name| name.to_string()), figures));
    }
    limits
}

#[test]
fn limits_in_readme_equal_their_constants() {
    let limits = limits();
    let gone = limits["LEASE"] + limits["RENEW"] + limits["LIST_PAUSE"];
    assert_eq!(gone, facts::GONE.as_secs_f64());
}

// ---- the source

#[test]
fn source_files_are_short_and_begin_with_a_comment() {
    for path in files("src") {
        let source = program(&path);
        let lines = source.lines().count();
        assert!(lines <= MAX_LINES, "{path} has {lines} lines");
        let comment = if path.ends_with(".rs") { "//! " } else { "-- " };
        let mut top = source.lines().take(2);
        let explained = top.any(|line| line.starts_with(comment));
        assert!(explained, "{path} has no comment on top");
    }
}

/// The files that a file of `src/` imports, by the paths in it that begin with `crate`, `super` or `self`.
fn imports(path: &str) -> BTreeSet<String> {
    let source = program(path);
    let folder = path.rsplit_once('/').expect("a path").0;
    let outer = folder.rsplit_once('/').map_or(folder, |(outer, _)| outer);
    let mut found = BTreeSet::new();
    for line in source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for word in line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            let Some((start, rest)) = word.split_once("::") else {
                continue;
            };
            let base = match start {
                "crate" => "src",
                "super" if path.ends_with("/mod.rs") => outer,
                "super" | "self" => folder,
                _ => continue,
            };
            assert!(
                !rest.is_empty(),
                "{path}: {line}: one `use` for each module can be checked"
            );
            let rest = rest.trim_end_matches(':');
            // The longest part of the path that is a file; the rest is what the file holds.
            let ends = rest.rmatch_indices("::").map(|(end, _)| end);
            let prefixes = [rest.len()].into_iter().chain(ends).map(|end| &rest[..end]);
            let files = prefixes.flat_map(|prefix| {
                let module = format!("{base}/{}", prefix.replace("::", "/"));
                [format!("{module}.rs"), format!("{module}/mod.rs")]
            });
            found.extend(files.into_iter().find(|file| root(file).exists()));
        }
    }
    found.remove(path);
    found
}

#[test]
fn imports_point_down_and_in_no_circle() {
    let sources = files("src")
        .into_iter()
        .filter(|path| path.ends_with(".rs"));
    let mut open: BTreeMap<String, BTreeSet<String>> =
        sources.map(|path| (path.clone(), imports(&path))).collect();
    open.remove("src/main.rs"); // a program of its own, which imports the library by its name
    let folder = |path: &str| {
        path.split('/')
            .rev()
            .nth_back(1)
            .expect("src/…")
            .to_string()
    };
    for (file, imports) in &open {
        let allowed = MAY_IMPORT.iter().find(|(own, _)| *own == folder(file));
        let Some((own, allowed)) = allowed else {
            continue;
        };
        for import in imports.iter().map(|import| folder(import)) {
            let down = allowed.iter().chain(&TOOLS).any(|name| import == *name);
            assert!(down || import == *own, "{file} may not import {import}");
        }
    }
    assert!(
        open["src/chat/rooms.rs"].contains("src/chat/follow.rs"),
        "imports are found"
    );
    // Take away what imports nothing that is left: circles remain.
    while let Some(leaf) = open.iter().find(|(_, imports)| imports.is_empty()) {
        let leaf = leaf.0.clone();
        open.remove(&leaf);
        open.values_mut()
            .for_each(|imports| _ = imports.remove(&leaf));
    }
    assert!(open.is_empty(), "there is a circle in {open:#?}");
}

//! Checks that documents, settings and source agree: names, paths, commands and figures, not sentences.

use crate::support::raw::{head, http};
use crate::support::{Dyno, facts};
use regex_lite::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter::zip;
use std::num::NonZeroU16;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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

/// What stands between backticks.
const CODE: &str = "`([^`]*)`";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A source file without its `mod tests`.
fn program(path: &str) -> String {
    let source = read(path);
    let end = source.find("#[cfg(test)]\nmod tests");
    source[..end.unwrap_or(source.len())].to_string()
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

fn documents() -> BTreeSet<String> {
    let mut documents = files("docs");
    documents.retain(|path| path.ends_with(".md"));
    documents.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(String::from));
    documents
}

/// The first group of each match.
fn find<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
    let regex = Regex::new(pattern).expect("a regular expression");
    let matches = regex.captures_iter(text);
    let groups = matches.filter_map(|found| Some(found.get(1)?.as_str()));
    groups.collect()
}

/// The numbers in a text: `1,000 of 20` has 1000 and 20.
fn numbers(text: &str) -> Vec<f64> {
    let text = text.replace(',', "");
    let numbers = find(r"(\d+)", &text).into_iter();
    numbers.map(|n| n.parse().expect("a number")).collect()
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
    let mut listed: Vec<_> = rows.iter().flat_map(|row| find(CODE, &row[0])).collect();
    listed.sort();
    let exist = &files("src") | &files("public");
    assert_eq!(listed, Vec::from_iter(&exist));
}

#[test]
fn links_and_paths_in_documents_exist() {
    const PATH: &str = r"`((?:(?:src|public|tests|bin|docs|benches|examples|fuzz|\.ci)/[^`\s]*|[^`\s]+\.(?:json|toml|md|example)))[`\s]";
    const LINK: &str = r"\]\(([^)#]+)";
    for document in documents() {
        let text = read(&document);
        for path in find(PATH, &text) {
            assert!(root(path).exists(), "{document}: {path} does not exist");
        }
        for link in find(LINK, &text) {
            let exists = link.contains("://") || root(&document).with_file_name(link).exists();
            assert!(exists, "{document}: {link} does not exist");
        }
    }
}

/// The commands in a document: indented or between backticks, after settings and `&&`, up to two spaces.
fn commands(text: &str) -> Vec<&str> {
    const COMMAND: &str = r"(?m)(?:^    |`|&& )(?:[A-Z_]+=\S+ )*((?:cargo|git|heroku|tests/run|bin/two-dynos)(?: [^ `\n&]+)*)";
    find(COMMAND, text)
}

/// Whether a test has this name: a file's (`faults`), the beginning of a test's in a file (`faults::a_redis`) or in any.
fn selects_tests(name: &str) -> bool {
    let (file, test) = name.split_once("::").unwrap_or((name, ""));
    let test = test.rsplit("::").next().unwrap_or_default();
    let path = format!("tests/it/{file}.rs");
    if root(&path).exists() {
        return read(&path).contains(&format!("fn {test}"));
    }
    let named = |path: &String| read(path).contains(&format!("fn {name}"));
    files("tests/it").iter().any(named)
}

#[test]
fn commands_in_documents_exist() {
    let (manifest, script) = (read("Cargo.toml"), read("tests/run"));
    for document in documents() {
        for command in commands(&read(&document)) {
            let exists = match command.split(' ').collect::<Vec<_>>()[..] {
                ["cargo", "run", "--release", "--example", name, ..]
                | ["cargo", "run", "--example", name, ..] => {
                    root(&format!("examples/{name}.rs")).exists()
                        || manifest.contains(&format!("[[example]]\nname = \"{name}\""))
                }
                ["cargo", "bench", ..] => manifest.contains("[[bench]]"),
                ["cargo", "run"] | ["cargo", "build"] | ["cargo", "build", "--release"] => true,
                ["cargo", ..] => false,
                ["tests/run", "quick"] => script.contains("= quick"),
                ["tests/run", "--browsers", "all"] => script.contains("--browsers all"),
                ["tests/run", name] => selects_tests(name),
                _ => true, // of another program
            };
            assert!(exists, "{document}: {command} cannot be run");
        }
    }
    let skipped = find(r"--skip (\w[\w:]*)", &script);
    assert!(skipped.len() > 5);
    for name in skipped {
        assert!(selects_tests(name), "tests/run leaves out {name}");
    }
    for script in ["bin/two-dynos", "tests/run"] {
        let permissions = root(script).metadata().expect(script).permissions();
        assert_ne!(permissions.mode() & 0o111, 0, "{script} cannot be run");
    }
}

#[test]
fn the_readme_has_the_commands_that_everyone_needs() {
    let app: Value = serde_json::from_str(&read("app.json")).expect("app.json is JSON");
    let value = |pointer: &str| app.pointer(pointer).and_then(Value::as_str).expect("text");
    let verify = value("/env/REDIS_TLS_VERIFY/value");
    let policy = value("/addons/0/options/maxmemory_policy");
    let readme = read("README.md");
    let commands = commands(&readme);
    for needed in [
        &*format!("heroku create --buildpack {}", value("/buildpacks/0/url")),
        &format!("heroku addons:create {}", value("/addons/0/plan")),
        &format!("heroku redis:maxmemory --policy {policy}"),
        &format!("heroku config:set REDIS_TLS_VERIFY={verify}"),
        "git push heroku main",
        "cargo run",
        "bin/two-dynos",
        "tests/run",
        "tests/run quick",
    ] {
        assert!(commands.contains(&needed), "the README lacks {needed}");
    }
}

/// Each section in both languages has the same level of heading, commands, links, and, in any order, code.
#[test]
fn readme_in_japanese_has_the_same_sections_commands_and_links() {
    let texts = ["README.md", "README.ja.md"].map(|path| read(path).replace(".ja.md", ".md"));
    let [english, japanese] = texts.each_ref().map(|text| {
        let sections = text.split("\n#").map(|section| {
            let level = section.chars().take_while(|c| *c == '#').count();
            let commands = find(r"(?m)^(    .*)$", section);
            let links = BTreeSet::from_iter(find(r"\]\(([^)]*)", section));
            let mut codes = find(CODE, section);
            codes.sort();
            (level, commands, links, codes)
        });
        Vec::from_iter(sections)
    });
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
        (name.to_string(), (line.0.replace("\n# ", " "), value))
    });
    settings.collect()
}

#[test]
fn settings_in_source_readme_and_example_agree() {
    let (config, examples) = (read("src/config.rs"), examples());
    let reads = BTreeSet::from_iter(find("read\\(\"(\\w+)\"", &config));
    let rows = table("README.md", "variable | without it");
    let listed = rows.iter().flat_map(|row| find(CODE, &row[0]));
    assert_eq!(BTreeSet::from_iter(listed), reads, "README");
    let named = examples.keys().map(String::as_str);
    assert_eq!(BTreeSet::from_iter(named), reads, ".env.example");

    let limits = limits();
    for row in &rows {
        for name in find(CODE, &row[0]) {
            let last_sentence = examples[name].0.rsplit(". ").next().expect(name);
            let words = find(r"(\w+)", last_sentence);
            for default in find(CODE, &row[1]) {
                assert!(words.contains(&default), ".env.example, {name}: {default}");
            }
            let limit = match name {
                "MAX_CONNECTIONS" => "RESERVED",
                "TALK_PER_SECOND" => "BURST",
                _ => continue,
            };
            assert!(numbers(&row[1]).contains(&limits[limit]), "{name}: {limit}");
        }
    }
    for path in files("src").iter().filter(|path| *path != "src/config.rs") {
        assert!(
            !program(path).contains("env::var"),
            "{path} reads a setting"
        );
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
    let value = format!(r"const {name}: [^=]*= ([^;]*);");
    let value = find(&value, &source).pop();
    let value = value.unwrap_or_else(|| panic!("no {name} in {path}"));
    let factors = find(r"\b([0-9_.]+|[A-Z_]+)\b", value).into_iter();
    let number = |factor: &str| match factor.replace('_', "").parse::<f64>() {
        Ok(number) => number,
        Err(_) => constant(path, factor),
    };
    let in_ms = value.contains("from_millis") || name.ends_with("_MS");
    factors.map(number).product::<f64>() / if in_ms { 1000.0 } else { 1.0 }
}

/// A figure with its unit: `1,000 code points`, `8 KiB`, `2 minutes`, `250 ms`.
fn figure(text: &str) -> f64 {
    let unit = match text.split(' ').nth(1) {
        Some("KiB") => 1024.0,
        Some("MiB") => 1024.0 * 1024.0,
        Some("ms") => 0.001,
        Some("min" | "minutes") => 60.0,
        Some("h" | "hours") => 3600.0,
        _ => 1.0,
    };
    numbers(text)[0] * unit
}

/// The limits in the README by the names of their constants. Compares each with its constant.
fn limits() -> BTreeMap<String, f64> {
    let mut limits = BTreeMap::new();
    for row in table("README.md", "what | limit | constant") {
        let words = find(CODE, &row[2]);
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
    const PATH: &str = r"\b((?:crate|super|self)::(?:\w+(?:::\w+)*)?)";
    let folder = path.rsplit_once('/').expect("a path").0;
    let mut source = program(path);
    source = find(r"(?m)^ *([^/ \n].*)", &source).join("\n"); // without comments
    let mut found = BTreeSet::new();
    for place in find(PATH, &source) {
        let (start, mut rest) = place.split_once("::").expect("the pattern has it");
        let base = match start {
            "crate" => "src",
            "super" if path.ends_with("/mod.rs") => folder.rsplit_once('/').expect("src/…").0,
            _ => folder,
        };
        assert!(
            !rest.is_empty(),
            "{path}: {place} needs one `use` for each module"
        );
        // The longest part of the path that is a file; the rest is what the file holds.
        while !rest.is_empty() {
            let module = format!("{base}/{}", rest.replace("::", "/"));
            let files = [format!("{module}.rs"), format!("{module}/mod.rs")];
            if let Some(file) = files.into_iter().find(|file| root(file).exists()) {
                found.insert(file);
                break;
            }
            rest = rest.rsplit_once("::").map_or("", |(outer, _)| outer);
        }
    }
    found.remove(path);
    found
}

#[test]
fn imports_point_down_and_in_no_circle() {
    let mut sources = files("src");
    sources.retain(|path| path.ends_with(".rs"));
    sources.remove("src/main.rs"); // a program of its own, which imports the library by its name
    let imports = sources
        .into_iter()
        .map(|path| (path.clone(), imports(&path)));
    let mut open = BTreeMap::from_iter(imports);
    let folder = |path: &str| path.split('/').nth(1).expect("src/…").to_string();
    for (file, imports) in &open {
        let Some((own, allowed)) = MAY_IMPORT.iter().find(|(own, _)| *own == folder(file)) else {
            continue;
        };
        for import in imports.iter().map(|import| folder(import)) {
            let mut down = allowed.iter().chain(&TOOLS).chain([own]);
            assert!(
                down.any(|name| import == *name),
                "{file} may not import {import}"
            );
        }
    }
    let example = open["src/chat/rooms.rs"].contains("src/chat/follow.rs");
    assert!(example, "imports are found");
    // Take away what imports nothing that is left: circles remain.
    while let Some(leaf) = open.iter().find(|(_, imports)| imports.is_empty()) {
        let leaf = leaf.0.clone();
        open.remove(&leaf);
        for imports in open.values_mut() {
            imports.remove(&leaf);
        }
    }
    assert!(open.is_empty(), "there is a circle in {open:#?}");
}

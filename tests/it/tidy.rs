//! Checks that documents, settings and source agree: names, paths, commands and figures, not sentences.

use crate::support::raw::{head, http};
use crate::support::{Dyno, facts};
use regex_lite::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::iter::zip;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders that each folder of `src/` may import besides itself. Files at the top of `src/` may import
/// everything, and everything may import the small tools.
const MAY_IMPORT: [(&str, &[&str]); 5] = [
    ("web", &["chat", "socket", "protocol"]),
    ("chat", &["store", "socket", "protocol"]),
    ("store", &["protocol"]),
    ("socket", &["protocol"]),
    ("protocol", &[]),
];
const TOOLS: [&str; 2] = ["lock", "log_throttle"];

/// Text between backticks, and the target of a link.
const CODE: &str = "`([^`]*)`";
const LINK: &str = r"\]\(([^)]*)";

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A source file without its `mod tests`.
fn program(path: &str) -> String {
    let source = read(path);
    let end = source.find("#[cfg(test)]\nmod tests");
    source[..end.unwrap_or(source.len())].to_string()
}

/// The output of a program.
fn output(program: impl AsRef<OsStr>, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    String::from_utf8(output.expect("it runs").stdout).expect("UTF-8")
}

/// Every file in a directory and below.
fn files(dir: &str) -> BTreeSet<String> {
    let found = output("find", &[dir, "-type", "f"]);
    found.lines().map(String::from).collect()
}

/// The first group of each match.
fn find<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
    let regex = Regex::new(pattern).expect("a regular expression");
    let matches = regex.captures_iter(text);
    let groups = matches.filter_map(|found| Some(found.get(1)?.as_str()));
    groups.collect()
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
fn paths_links_and_commands_in_documents_exist() {
    const PATH: &str = r"`((?:(?:src|public|tests|bin|docs|benches|examples|fuzz|\.ci)/[^`\s]*|[^`\s]+\.(?:json|toml|md|example)))[`\s]";
    let mut documents = files("docs");
    documents.retain(|path| path.ends_with(".md"));
    documents.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(String::from));
    for document in documents {
        let text = read(&document);
        let paths = find(PATH, &text).into_iter().map(PathBuf::from);
        let links = find(LINK, &text)
            .into_iter()
            .filter(|link| !link.contains("://"));
        let files = links.map(|link| link.split('#').next().unwrap_or_default());
        let linked = files.map(|file| Path::new(&document).with_file_name(file));
        for path in paths.chain(linked) {
            assert!(path.exists(), "{document}: {path:?} does not exist");
        }
        for command in commands(&text) {
            assert!(exists(command), "{document}: {command} cannot be run");
        }
    }
    let script = read("tests/run");
    let skipped = find(r"--skip ([\w:]+)", &script);
    assert!(skipped.len() > 5);
    for name in skipped {
        assert!(selects_tests(name), "tests/run leaves out {name}");
    }
}

/// The commands in a document: indented or between backticks, after settings and `&&`, up to two spaces.
fn commands(text: &str) -> Vec<&str> {
    const COMMAND: &str = r"(?m)(?:^    |`|&& )(?:[A-Z_]+=\S+ )*((?:cargo|git|heroku|tests/run|bin/two-dynos)(?: [^ `\n&]+)*)";
    find(COMMAND, text)
}

/// Commands of other programs are not checked.
fn exists(command: &str) -> bool {
    let script = read("tests/run");
    match command.split(' ').collect::<Vec<_>>()[..] {
        ["cargo", "run", "--release", "--example", name, ..]
        | ["cargo", "run", "--example", name, ..] => {
            files("examples").contains(&format!("examples/{name}.rs"))
                || read("Cargo.toml").contains(&format!("[[example]]\nname = \"{name}\""))
        }
        ["cargo", "build", "--release"] | ["cargo", "bench", ..] => true,
        ["cargo", ref words @ ..] => words == ["run"],
        ["tests/run", "quick"] => script.contains("= quick"),
        ["tests/run", "--browsers", "all"] => script.contains("--browsers all"),
        ["tests/run", name] => selects_tests(name),
        _ => true,
    }
}

/// Whether tests have this name, or one that begins with it.
fn selects_tests(name: &str) -> bool {
    let program = std::env::current_exe().expect("this program");
    let tests = output(program, &["--list"]);
    !find(&format!("(?m)^(?:.*::)?({name})"), &tests).is_empty()
}

/// The first four do what `app.json` says.
#[test]
fn the_readme_has_the_commands_that_everyone_needs() {
    const NEEDED: [&str; 9] = [
        "heroku create --buildpack emk/rust",
        "heroku addons:create heroku-redis:mini",
        "heroku redis:maxmemory --policy volatile-lru",
        "heroku config:set REDIS_TLS_VERIFY=false",
        "git push heroku main",
        "cargo run",
        "bin/two-dynos",
        "tests/run",
        "tests/run quick",
    ];
    let (readme, app) = (read("README.md"), read("app.json"));
    let commands = commands(&readme);
    for needed in NEEDED {
        assert!(commands.contains(&needed), "the README lacks {needed}");
    }
    for command in &NEEDED[..4] {
        let value = command.rsplit([' ', '=']).next().expect(command);
        assert!(app.contains(&format!("\"{value}\"")), "app.json: {command}");
    }
}

/// Each section in both languages has the same level of heading, commands, links, and, in any order, code.
#[test]
fn readme_in_japanese_has_the_same_sections_commands_and_links() {
    let [english, japanese] =
        ["README.md", "README.ja.md"].map(|path| read(path).replace(".ja.md", ".md"));
    let [english, japanese] = [&english, &japanese].map(|text| text.split("\n#"));
    assert_eq!(
        english.clone().count(),
        japanese.clone().count(),
        "sections"
    );
    for sections in zip(english, japanese) {
        let [own, other] = <[&str; 2]>::from(sections).map(|section| {
            let mut codes = find(CODE, section);
            codes.sort();
            let links = BTreeSet::from_iter(find(LINK, section));
            (find("(?m)^(    .*|#+)", section), links, codes)
        });
        assert_eq!(own, other, "README.md and README.ja.md");
    }
}

// ---- settings

#[test]
fn settings_in_source_readme_and_example_agree() {
    let (config, example) = (read("src/config.rs"), read(".env.example"));
    let reads = BTreeSet::from_iter(find("read\\(\"(\\w+)\"", &config));
    let named = BTreeSet::from_iter(find("(?m)^# ([A-Z_]+)=", &example));
    assert_eq!(named, reads, ".env.example");
    let rows = table("README.md", "variable | without it");
    let listed = rows.iter().flat_map(|row| find(CODE, &row[0]));
    assert_eq!(BTreeSet::from_iter(listed), reads, "README");

    for row in &rows {
        let defaults = find(CODE, &row[1]);
        for name in find(CODE, &row[0]) {
            for default in &defaults {
                let sentence = format!(r"([Ww]ithout\b[^.=]*\b{default}\b[^.=]*\.\n# {name}=)");
                let says = !find(&sentence, &example).is_empty();
                assert!(says, ".env.example, {name}: {default}");
            }
            let limit = match name {
                "MAX_CONNECTIONS" => constant("src/config.rs", "RESERVED"),
                "TALK_PER_SECOND" => constant("src/chat/token_bucket.rs", "BURST"),
                _ => continue,
            };
            assert!(defaults.contains(&&*limit.to_string()), "{name}: {limit}");
        }
    }
}

#[tokio::test]
async fn every_example_value_boots() {
    let example = read(".env.example");
    let port = find("# PORT=(.*)", &example)[0].parse::<NonZeroU16>(); // the dyno below listens on another
    assert!(port.is_ok(), "{port:?}");
    for line in find("(?m)^# ([A-Z_]+=.*)", &example) {
        println!("{line}"); // names the setting if the dyno does not start
        let (name, value) = line.split_once('=').expect("the pattern has it");
        let dyno = Dyno::start(&[(name, value.trim_matches('"'))]).await;
        let page = http(dyno.addr(), &head("GET /", &dyno.host(), &[])).await;
        assert_eq!(page.status, 200, "{}", dyno.log());
    }
}

// ---- limits

/// The value of a constant: a product of numbers and of constants of the same file; a time in seconds.
fn constant(path: &str, name: &str) -> f64 {
    let source = read(path);
    let value = find(&format!(r"const {name}: [^=]*= ([^;]*);"), &source).pop();
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
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: f64 = number.replace(',', "").parse().expect(text);
    match unit {
        "KiB" => number * 1024.0,
        "MiB" => number * 1024.0 * 1024.0,
        "ms" => number / 1000.0,
        "minutes" => number * 60.0,
        "hours" => number * 3600.0,
        _ => number,
    }
}

#[test]
fn limits_in_readme_equal_their_constants() {
    for row in table("README.md", "what | limit | constant") {
        let words = find(CODE, &row[2]);
        let (path, names) = words.split_first().expect("a file and its constants");
        let values: Vec<_> = names.iter().map(|name| constant(path, name)).collect();
        let figures: Vec<_> = row[1].split(", ").map(figure).collect();
        assert_eq!(figures, values, "README and constants: {row:?}");
    }
    let gone = constant("src/store/lease.rs", "LEASE")
        + constant("src/chat/leases.rs", "RENEW")
        + constant("src/chat/follow.rs", "LIST_PAUSE");
    assert_eq!(gone, facts::GONE.as_secs_f64());
}

// ---- the source

#[test]
fn source_files_are_short_and_explained_and_only_one_reads_settings() {
    for path in files("src") {
        let source = program(&path);
        let lines = source.lines().count();
        assert!(lines <= 300, "{path} has {lines} lines");
        let comment = if path.ends_with(".rs") { "//! " } else { "-- " };
        let mut top = source.lines().take(2);
        let explained = top.any(|line| line.starts_with(comment));
        assert!(explained, "{path} has no comment on top");
        let reads = source.contains("env::var");
        assert_eq!(reads, path == "src/config.rs", "{path} reads a setting");
    }
}

/// The modules of the library, such as `src::chat::room`, and which others each of them names.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut sources = BTreeMap::new();
    for path in files("src").iter().filter(|path| path.ends_with(".rs")) {
        let file = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = file.replace('/', "::");
        let (parent, _) = module.rsplit_once("::").expect("src::…");
        let source = program(path).replace("crate::", "src::");
        let source = source.replace("super::", &format!("{parent}::"));
        let source = source.replace("self::", &format!("{module}::"));
        sources.insert(module, source);
    }
    // The longest beginning of a path that is a module.
    let module = |mut path: &str| {
        while !sources.contains_key(path) {
            let outer = path.rsplit_once("::");
            path = outer.expect("one `use` for each module, not `crate::{`").0;
        }
        path.to_string()
    };
    let imports = sources.iter().map(|(own, source)| {
        let modules = find(r"\b(src::[\w:]*)", source).into_iter().map(module);
        (own.clone(), modules.filter(|other| other != own).collect())
    });
    imports.collect()
}

#[test]
fn imports_point_down_and_in_no_circle() {
    let mut open = imports();
    for (module, imports) in &open {
        for import in imports {
            let [own, other] = [module, import].map(|path| path.split("::").nth(1).expect(path));
            let rule = MAY_IMPORT.iter().find(|(folder, _)| *folder == own);
            let down = rule.is_none_or(|(_, others)| others.contains(&other));
            let allowed = down || own == other || TOOLS.contains(&other);
            assert!(allowed, "{module} may not import {import}");
        }
    }
    let example = open["src::chat::rooms"].contains("src::chat::follow");
    assert!(example, "imports are found");
    // Take away what imports nothing that is left, until only circles remain.
    let mut before = 0;
    while open.len() != before {
        before = open.len();
        let left = BTreeSet::from_iter(open.keys().cloned());
        open.retain(|_, imports| !imports.is_disjoint(&left));
    }
    assert!(open.is_empty(), "there is a circle in {open:#?}");
}

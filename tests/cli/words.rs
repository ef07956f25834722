//! What the command line says before any store is touched: helps, configs, exit codes.

use super::tolk::Tolk;

/// The subcommands that the help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    list.filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn the_help_lists_the_subcommands_and_the_exit_codes() {
    let tolk = Tolk::new();
    let help = tolk.run(&["--help"]).expect(0).says(&["--config", "TOLK_CONFIG", "Exit codes: 0 done, 1 findings, 2 usage"]);
    let found = subcommands(&help.out);
    for name in ["init", "run", "migrate", "doctor", "push", "activate", "rollback", "plugins", "messages", "capture", "completions"] {
        assert!(found.iter().any(|found| found == name), "{name} in {found:?}");
    }
    assert!(!help.out.contains("__compile"), "the compiling child is nobody's command");
    for name in found {
        let help = tolk.run(&[&name, "--help"]).expect(0);
        assert!(help.out.lines().next().is_some_and(|line| line.len() > 10 && !line.starts_with("Usage")), "{name} says what it does");
        assert!(help.err.is_empty(), "{}", help.err);
    }
}

#[test]
fn every_listing_takes_output_json() {
    let tolk = Tolk::new();
    for listing in ["plugins", "messages", "doctor", "migrate", "push"] {
        tolk.run(&[listing, "--help"]).expect(0).says(&["--output <FORMAT>", "table, json"]);
    }
}

#[test]
fn completions_are_scripts_that_know_the_subcommands() {
    let tolk = Tolk::new();
    for shell in ["bash", "zsh", "fish"] {
        tolk.run(&["completions", shell]).expect(0).says(&["tolk", "rollback", "allow-widening"]);
    }
    tolk.run(&["completions", "tcl"]).expect(2).complains(&["possible values"]);
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let tolk = Tolk::ready();
    tolk.run(&[]).expect(2).complains(&["Usage: tolk"]);
    tolk.run(&["mesages"]).expect(2).complains(&["messages"]);
    tolk.run(&["messages", "--status", "hadnled"]).expect(2).complains(&["did you mean `handled`?"]);
    tolk.run(&["messages", "--feed", "exmaple"]).expect(2).complains(&["feed \"exmaple\"", "did you mean `example`?"]);
    tolk.run(&["messages", "show", "what"]).expect(2).complains(&["FEED/PARTITION/OFFSET"]);
    tolk.run(&["activate", "x", "--feed", "nobody", "--table", "t"]).expect(2).complains(&["feed \"nobody\""]);
    tolk.run(&["capture", "--topic", "t", "--feed", "f"]).expect(2).complains(&["cannot be used with"]);
    tolk.run(&["capture", "--topic", "t"]).expect(2).complains(&["the config has none", "[kafka.NAME]"]);
}

#[test]
fn init_writes_a_config_once() {
    let tolk = Tolk::new();
    let said = tolk.run(&["init"]).expect(0).complains(&["wrote tolk.toml", "tolk doctor"]);
    assert!(said.out.is_empty(), "{}", said.out);
    let before = tolk.read("tolk.toml");
    tolk.run(&["init", "--postgres"]).expect(2).complains(&["never overwrites", "--config"]);
    assert_eq!(tolk.read("tolk.toml"), before);
    tolk.run(&["init", "--kafka", "--postgres", "--config", "other.toml"]).expect(0);
    assert!(tolk.read("other.toml").contains("postgres://"));
    tolk.run_with(&["init"], &[("TOLK_CONFIG", "third.toml")]).expect(0);
    assert!(tolk.path("third.toml").exists());
    tolk.run(&["init", "--config", "no/such/folder/tolk.toml"]).expect(3).complains(&["no/such/folder"]);
}

#[test]
fn a_missing_config_says_how_to_get_one() {
    Tolk::new().run(&["plugins"]).expect(2).complains(&["tolk.toml: no such file", "tolk init", "--config"]);
}

#[test]
fn a_typo_in_the_config_names_file_line_key_and_what_was_meant() {
    let tolk = Tolk::ready();
    let text = tolk.read("tolk.toml").replace("[feeds.example]\n", "[feeds.example]\nretrry = { attempts_max = 3 }\n");
    tolk.write("tolk.toml", &text);
    let line = text.lines().position(|line| line.starts_with("retrry")).unwrap() + 1;
    for command in [&["doctor"][..], &["run"], &["migrate"], &["messages"]] {
        let key = format!("feeds.example.retrry (line {line})");
        let said = tolk.run(command).expect(2).complains(&["error: failed to use the config tolk.toml", &key, "did you mean `retry`?"]);
        assert!(said.out.is_empty(), "{}", said.out);
    }
    assert!(!tolk.path("tolk.db").exists(), "a config that is wrong opens nothing");
}

#[test]
fn several_problems_are_told_at_once() {
    let tolk = Tolk::ready();
    tolk.write(
        "tolk.toml",
        &tolk.read("tolk.toml").replace("[\"/table\", \"/source/table\"]", "[\"table\"]\nlanes = 0\ntime_zone = \"Mars/Base\""),
    );
    tolk.run(&["doctor"]).expect(2).complains(&["feeds.example.table[0]", "\"/table\"", "feeds.example.lanes", "4096", "Mars/Base"]);
}

#[test]
fn secrets_come_from_the_environment_and_are_never_shown() {
    let tolk = Tolk::new();
    tolk.write("tolk.toml", &format!("[store]\nurl = \"postgres://tolk:${{TOLK_SECRET}}@{}/tolk\"\n", super::tolk::closed_port()));
    tolk.run(&["migrate"]).expect(2).complains(&["store.url (line 2)", "TOLK_SECRET is not set"]);
    for command in [&["migrate"][..], &["doctor"], &["doctor", "-o", "json"], &["messages"]] {
        let said = tolk.run_with(command, &[("TOLK_SECRET", "open-sesame")]).expect(3);
        assert!(!said.out.contains("open-sesame") && !said.err.contains("open-sesame"), "{said:?}");
    }
}

#[test]
fn colours_need_a_terminal() {
    let tolk = Tolk::ready();
    let said = tolk.run(&["messages", "--feed", "nobody"]).expect(2);
    assert!(!said.err.contains('\u{1b}'), "{:?}", said.err);
    let forced = tolk.run_with(&["messages", "--feed", "nobody"], &[("CLICOLOR_FORCE", "1")]).expect(2);
    assert!(forced.err.contains('\u{1b}'), "{:?}", forced.err);
}

//! Seeds of the simulation: they go well, they are the same each time, and they find what is broken.

use std::process::{Command, Output};

fn simulation(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_aldis-simulation");
    Command::new(program).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn everything_arrives_once_and_in_order_whatever_goes_wrong() {
    let seeds = std::env::var("SIM_SEEDS").unwrap_or_else(|_| "200".to_owned());
    let first = std::env::var("SIM_FIRST").unwrap_or_else(|_| "1".to_owned());
    let run = simulation(&["--seeds", &seeds, "--first", &first]);
    assert!(run.status.success(), "{}", text(&run));
}

/// What happened, without the instants: what TLS writes is now and then a byte longer, which moves a few milliseconds.
fn happened(trace: &str) -> Vec<&str> {
    let lines = trace.lines().filter_map(|line| line.trim_start().split_once(' '));
    let mut happened: Vec<_> = lines.filter(|(at, _)| at.parse::<u64>().is_ok()).map(|(_, what)| what).collect();
    happened.sort_unstable();
    happened
}

#[test]
fn a_seed_decides_what_happens() {
    for seed in ["7", "8", "9"] {
        let runs = [(); 2].map(|()| text(&simulation(&["--one", seed, "--trace"])));
        let [first, second] = runs.each_ref().map(|run| happened(run));
        assert!(first.len() > 50, "{}", runs[0]);
        assert_eq!(first, second, "seed {seed}");
    }
}

/// What is broken is found within so many seeds, and reported as such.
fn is_found(rule: &str, as_one_of: &[&str]) {
    let run = simulation(&["--seeds", "40", "--broken", rule]);
    let report = text(&run);
    assert!(!run.status.success(), "{report}");
    assert!(as_one_of.iter().any(|what| report.contains(&format!("wrong {what}"))), "{report}");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    is_found("answered-early", &["lost", "twice", "stuck"]);
}

#[test]
fn an_effect_without_its_position_is_found() {
    is_found("effect-first", &["twice"]);
}

#[test]
fn a_position_without_its_effect_is_found() {
    is_found("position-first", &["lost"]);
}

#[test]
fn a_change_that_is_told_in_a_later_commit_is_found() {
    is_found(
        "told-later",
        &["lost", "reordered", "alpha.test told its notifications", "beta.test told its notifications"],
    );
}

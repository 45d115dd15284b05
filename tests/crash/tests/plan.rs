//! What a seed decides.

use std::process::Command;

fn plan(seed: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_aldis-crash")).args(["--plan", "40", "--seed", seed]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_seed_says_beforehand_what_will_happen() {
    let first = plan("7");
    assert_eq!(first.lines().count(), 40);
    assert_eq!(first, plan("7"));
    assert_ne!(first, plan("8"));
}

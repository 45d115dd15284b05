//! The binary `aldis` under another name, for tests that start and kill real processes.

fn main() -> std::process::ExitCode {
    aldis::main()
}

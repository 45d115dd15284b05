//! The program `aldis`; see the library.

fn main() -> std::process::ExitCode {
    aldis::main()
}

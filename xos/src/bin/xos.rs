//! The `xos` tool.
fn main() -> std::process::ExitCode {
    xos::cli::main()
}

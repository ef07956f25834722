//! The binary: hands over to the command line, or compiles one component if it is the compiling child.

fn main() -> std::process::ExitCode {
    tolk::runtime::compile::child().unwrap_or_else(tolk::cli::main)
}

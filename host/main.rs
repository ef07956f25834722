//! The binary: hands over to the command line, unless it is a child that compiles one component or tries messages.

fn main() -> std::process::ExitCode {
    tolk::runtime::compile::child().or_else(tolk::runtime::trial::child).unwrap_or_else(tolk::cli::main)
}

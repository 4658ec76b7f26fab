use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [command, flag, home] if command == "supervise" && flag == "--home" => {
            minflow::supervisor::main(Path::new(home))
        }
        _ => ExitCode::from(2),
    }
}

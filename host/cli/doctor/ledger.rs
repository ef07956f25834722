//! `tolk doctor --ledger`: the equations that hold in every committed state, each with its two sides.

use crate::cli::Exit;
use crate::cli::listing::{self, Format};
use crate::cli::shell::Shell;

pub(super) async fn run(format: &Format, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let equations = store.ledger().await?;
    listing::print(
        shell,
        format,
        &equations,
        &["equation", "left", "right", "difference", "what must hold", "where it does not"],
        |equation| {
            vec![
                equation.name.to_owned(),
                equation.left.to_string(),
                equation.right.to_string(),
                equation.difference().to_string(),
                equation.says.to_owned(),
                equation.sample.clone().unwrap_or_default(),
            ]
        },
        "no equations",
    )?;
    let broken = equations.iter().filter(|equation| !equation.holds()).count();
    if broken > 0 {
        shell.note(format_args!("{broken} of {} equations do not hold; please report it with this table", equations.len()));
        return Ok(Exit::Findings);
    }
    Ok(Exit::Ok)
}

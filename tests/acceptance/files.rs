//! Finds case files below a folder and tells from their shape what they hold. Knows no system.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of cases that can be played.
pub struct CaseFile {
    /// Where it is, from the folder that was asked for.
    pub name: String,
    /// The system that the cases were taken from.
    pub system: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A case, by its shape.
pub struct Case {
    /// What sort of case it is.
    pub kind: Kind,
    /// Its id, or its number in the file.
    pub id: String,
    /// Its title.
    pub title: String,
    /// All of it.
    pub whole: Value,
}

/// The shapes of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A world, steps, and what is expected afterwards.
    Scenario,
    /// The input of an inner rule and its result.
    Pair,
    /// One request to a remote system, its answer, and what is made of it.
    Exchange,
}

/// Every file below `folder`, in the order of names: cases, or why it holds none.
pub fn find(folder: &Path) -> anyhow::Result<Vec<Result<CaseFile, String>>> {
    let mut paths = Vec::new();
    collect(folder, &mut paths).map_err(|error| anyhow::anyhow!("read {}: {error}", folder.display()))?;
    paths.sort();
    Ok(paths.iter().map(|path| read(folder, path)).collect())
}

fn collect(path: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        paths.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            collect(&entry.path(), paths)?;
        }
    }
    Ok(())
}

fn read(folder: &Path, path: &Path) -> Result<CaseFile, String> {
    let name = path.strip_prefix(folder).ok().filter(|name| !name.as_os_str().is_empty()).unwrap_or(path).display().to_string();
    let unknown = |why: String| format!("{name}: {why}");
    let bytes = std::fs::read(path).map_err(|error| unknown(error.to_string()))?;
    let file: Value = serde_json::from_slice(&bytes).map_err(|error| unknown(format!("no JSON ({error})")))?;
    let listed = file.get("cases").unwrap_or(&file);
    let cases = match listed {
        Value::Array(cases) => cases.clone(),
        single => vec![single.clone()],
    };
    let cases: Option<Vec<Case>> = cases.into_iter().enumerate().map(|(number, case)| shape(number, case)).collect();
    let cases = cases.ok_or_else(|| {
        unknown("its cases have neither `steps` and `expect`, nor `input` and `expected`, nor `request` and `response`".to_owned())
    })?;
    if cases.is_empty() {
        return Err(unknown("it holds no case".to_owned()));
    }
    // Without a word of its own a file belongs to the system that its folder is named after.
    let parent = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let system = file["system"].as_str().map(str::to_owned).or(parent).unwrap_or_default();
    Ok(CaseFile { name, system, cases })
}

fn shape(number: usize, case: Value) -> Option<Case> {
    let has = |key: &str| case.get(key).is_some();
    let kind = match () {
        () if has("steps") && has("expect") => Kind::Scenario,
        () if has("input") && has("expected") => Kind::Pair,
        () if has("request") && has("response") => Kind::Exchange,
        () => return None,
    };
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let id = text("id").unwrap_or_else(|| format!("#{}", number + 1));
    let title = ["title", "name", "test", "request"].into_iter().find_map(text).unwrap_or_default();
    Some(Case { kind, id, title, whole: case })
}

//! A figure: ours, the peer's, and the ratio.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One line of the result. `peer` is what `name` compares with; a ratio above 1 is in our favour where more is
/// better, and a plain quotient elsewhere.
#[derive(Serialize)]
pub struct Figure<'a> {
    pub name: &'a str,
    pub ours: f64,
    pub peer: Option<f64>,
    pub ratio: Option<f64>,
    pub unit: &'a str,
}

/// Where figures go: standard output, and a file if one was named.
pub struct Figures {
    file: Option<File>,
}

impl Figures {
    pub fn to(path: Option<&Path>) -> Result<Figures> {
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("open {}", path.display()))
        };
        Ok(Figures {
            file: path.map(open).transpose()?,
        })
    }

    /// A figure with a peer; the ratio is ours divided by the peer's.
    pub fn compare(&mut self, name: &str, ours: f64, peer: f64, unit: &str) -> Result<()> {
        self.write(&Figure {
            name,
            ours: rounded(ours),
            peer: Some(rounded(peer)),
            ratio: (peer != 0.0).then(|| rounded(ours / peer)),
            unit,
        })
    }

    /// A figure that is reported as it is.
    pub fn report(&mut self, name: &str, ours: f64, unit: &str) -> Result<()> {
        self.write(&Figure {
            name,
            ours: rounded(ours),
            peer: None,
            ratio: None,
            unit,
        })
    }

    fn write(&mut self, figure: &Figure<'_>) -> Result<()> {
        let line = serde_json::to_string(figure)?;
        println!("{line}");
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle one; of an even number the lower middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}

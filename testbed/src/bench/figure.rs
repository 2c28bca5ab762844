//! What a benchmark answers.

use super::samples::Samples;
use serde::{Serialize, Serializer};
use std::fmt;

/// What a figure shall reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Reach {
    /// Whether `value` reaches it.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Reach::AtLeast(least) => value >= least,
            Reach::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::AtLeast(least) => write!(out, ">= {least}"),
            Reach::AtMost(most) => write!(out, "<= {most}"),
        }
    }
}

impl Serialize for Reach {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The median.
    pub value: f64,
    /// The unit of [`Figure::value`] and [`Figure::peer_value`].
    pub unit: &'static str,
    /// What it shall reach; in JSON a text such as `>= 1000`.
    pub reach: Option<Reach>,
    /// Whether it does.
    pub met: Option<bool>,
    /// Whose figure stands beside it, and how it was taken.
    pub peer: Option<String>,
    /// The peer's median.
    pub peer_value: Option<f64>,
}

impl Figure {
    /// The median of `samples`.
    pub fn new(name: impl Into<String>, samples: &Samples, unit: &'static str) -> Figure {
        let value = samples.median();
        let (reach, met, peer, peer_value) = (None, None, None, None);
        Figure { name: name.into(), value, unit, reach, met, peer, peer_value }
    }

    /// The same with what it shall reach.
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Figure {
        self.met = Some(reach.is_met(self.value));
        self.reach = Some(reach);
        self
    }

    /// The same with a peer's figure, if there is one.
    #[must_use]
    pub fn beside(mut self, peer: &str, samples: Option<&Samples>) -> Figure {
        if let Some(samples) = samples {
            self.peer = Some(peer.to_owned());
            self.peer_value = Some(samples.median());
        }
        self
    }
}

/// The figures as people read them; the ratio is ours to the peer's.
pub fn table(figures: &[Figure]) -> String {
    let head = ["FIGURE", "VALUE", "UNIT", "REACH", "", "RATIO", "PEER", ""].map(str::to_owned);
    let met = |met: Option<bool>| match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    };
    let row = |f: &Figure| {
        [
            f.name.clone(),
            number(f.value),
            f.unit.to_owned(),
            f.reach.map(|r| r.to_string()).unwrap_or_default(),
            met(f.met).to_owned(),
            f.peer_value.map(|peer| number(f.value / peer)).unwrap_or_default(),
            f.peer_value.map(number).unwrap_or_default(),
            f.peer.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(figures.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let right = [1, 5, 6].contains(&column) && cell.parse::<f64>().is_ok();
            line += &if right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Three digits or so: more would say more than was measured.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a figure that misses its reach could be called met.
    #[test]
    fn a_reach_has_a_direction() {
        let samples = Samples::new(vec![14.0, 16.0, 15.0]);
        let figure = Figure::new("a", &samples, "ms");
        assert_eq!(figure.clone().reach(Reach::AtMost(15.0)).met, Some(true));
        assert_eq!(figure.clone().reach(Reach::AtMost(14.9)).met, Some(false));
        assert_eq!(figure.clone().reach(Reach::AtLeast(15.1)).met, Some(false));
        assert_eq!(figure.met, None);
    }

    /// If it failed, readers of the JSON list could not tell "no peer" from a peer without a name.
    #[test]
    fn what_is_missing_is_null() {
        let samples = Samples::new(vec![2.0]);
        let figure = Figure::new("a", &samples, "ms").beside("other", None);
        let json = serde_json::to_value(figure.reach(Reach::AtMost(15.0))).unwrap();
        let wanted = serde_json::json!({
            "name": "a", "value": 2.0, "unit": "ms", "reach": "<= 15", "met": true,
            "peer": null, "peer_value": null,
        });
        assert_eq!(json, wanted);
    }

    /// If it failed, columns would not stand below one another.
    #[test]
    fn tables_are_aligned() {
        let few = Samples::new(vec![2.0]);
        let many = Samples::new(vec![12345.6]);
        let three = Figure::new("three", &many, "/s").beside("other", Some(&few));
        let text = table(&[Figure::new("one", &few, "ms"), three]);
        let wanted = "FIGURE  VALUE  UNIT  REACH    RATIO  PEER\n\
                      one      2.00  ms\n\
                      three   12346  /s              6173  2.00  other\n";
        assert_eq!(text, wanted);
    }
}

//! One measured figure and whether it is as good as it should be.

use std::fmt;

use serde::{Serialize, Serializer};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    pub metric: String,
    pub value: f64,
    pub unit: Unit,
    pub goal: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Ns,
    Us,
    Ms,
    /// Of 1,000,000 bytes.
    MB,
    Ratio,
    Instructions,
    Records,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// It is there to be looked at.
    None,
    AtMost(f64),
    AtLeast(f64),
    Around {
        center: f64,
        tolerance: f64,
    },
}

impl Figure {
    pub fn new(metric: impl Into<String>, value: f64, unit: Unit, goal: Goal) -> Figure {
        let metric = metric.into();
        Figure {
            metric,
            value,
            unit,
            goal,
        }
    }

    pub fn is_met(&self) -> bool {
        match self.goal {
            Goal::None => true,
            Goal::AtMost(limit) => self.value <= limit,
            Goal::AtLeast(limit) => self.value >= limit,
            Goal::Around { center, tolerance } => (self.value - center).abs() <= tolerance,
        }
    }

    /// `ok` or `short`.
    pub fn word(&self) -> &'static str {
        if self.is_met() { "ok" } else { "short" }
    }
}

impl Unit {
    pub fn word(self) -> &'static str {
        match self {
            Unit::Ns => "ns",
            Unit::Us => "us",
            Unit::Ms => "ms",
            Unit::MB => "MB",
            Unit::Ratio => "ratio",
            Unit::Instructions => "instructions",
            Unit::Records => "records",
        }
    }

    /// With as many digits as mean something.
    pub fn text(self, value: f64) -> String {
        let digits = match self {
            Unit::Ratio => 4,
            Unit::MB | Unit::Us => 2,
            Unit::Ns | Unit::Ms => 1,
            Unit::Instructions | Unit::Records => 0,
        };
        format!("{value:.digits$}")
    }
}

/// A line of fields with tabs between them: metric, value, unit, goal, `ok` or `short`.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.unit.text(self.value);
        write!(
            f,
            "{}\t{value}\t{}\t{}\t{}",
            self.metric,
            self.unit.word(),
            self.goal,
            self.word()
        )
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::None => f.write_str("-"),
            Goal::AtMost(limit) => write!(f, "<={limit}"),
            Goal::AtLeast(limit) => write!(f, ">={limit}"),
            Goal::Around { center, tolerance } => write!(f, "{center}+-{tolerance}"),
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: f64, unit: Unit, goal: Goal) -> String {
        Figure::new("m", value, unit, goal).to_string()
    }

    #[test]
    fn a_goal_is_met_up_to_its_limit() {
        let around = Goal::Around {
            center: 1.0,
            tolerance: 0.02,
        };
        let lines = [
            line(90.0, Unit::Ns, Goal::AtMost(90.0)),
            line(90.1, Unit::Ns, Goal::AtMost(90.0)),
            line(0.95, Unit::Ratio, Goal::AtLeast(0.95)),
            line(0.9499, Unit::Ratio, Goal::AtLeast(0.95)),
            line(0.99, Unit::Ratio, around),
            line(1.0204, Unit::Ratio, around),
            line(-0.97, Unit::Ratio, around),
            line(123.0, Unit::Instructions, Goal::None),
        ];
        let expected = [
            "m\t90.0\tns\t<=90\tok",
            "m\t90.1\tns\t<=90\tshort",
            "m\t0.9500\tratio\t>=0.95\tok",
            "m\t0.9499\tratio\t>=0.95\tshort",
            "m\t0.9900\tratio\t1+-0.02\tok",
            "m\t1.0204\tratio\t1+-0.02\tshort",
            "m\t-0.9700\tratio\t1+-0.02\tshort",
            "m\t123\tinstructions\t-\tok",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_no_number_is_short() {
        assert!(!Figure::new("m", f64::NAN, Unit::Ns, Goal::AtMost(1.0)).is_met());
        assert!(!Figure::new("m", f64::NAN, Unit::Ns, Goal::AtLeast(1.0)).is_met());
    }
}

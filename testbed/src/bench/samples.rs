//! Repetitions of one measurement.

use super::figure::number;
use std::fmt;

/// At least one value, in ascending order.
#[derive(Clone, Debug)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// The values; none becomes one that is not a number.
    pub fn new(mut values: Vec<f64>) -> Samples {
        if values.is_empty() {
            values.push(f64::NAN);
        }
        values.sort_by(f64::total_cmp);
        Samples(values)
    }

    /// The middle one, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len() % 2 == 1 {
            self.0[middle]
        } else {
            self.0[middle - 1..=middle].iter().sum::<f64>() / 2.0
        }
    }

    /// Each value changed.
    pub fn map(&self, change: impl Fn(f64) -> f64) -> Samples {
        Samples::new(self.0.iter().map(|&v| change(v)).collect())
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0[0], self.0[self.0.len() - 1]);
        let [min, median, max] = [first, self.median(), last].map(number);
        write!(out, "min {min}, median {median}, max {max} of {}", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, every figure would be wrong.
    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Samples::new(vec![9.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples::new(vec![4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        assert!(Samples::new(Vec::new()).median().is_nan());
        let said = Samples::new(vec![2.0, 1.0]).map(|v| v * 10.0).to_string();
        assert_eq!(said, "min 10.0, median 15.0, max 20.0 of 2");
    }
}

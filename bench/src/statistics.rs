//! What many measurements say together: medians with quartiles, of values and of pairs.

use serde::Serialize;

/// A median and the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Spread {
            low: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            high: quantile(&sorted, 0.75)?,
        })
    }

    /// Of what each round adds to the base of the same round. Rounds that have only one of the two do not count.
    pub fn of_differences(values: &[f64], bases: &[f64]) -> Option<Spread> {
        Spread::of(&pairs(values, bases, |value, base| value - base))
    }

    /// Of each round's share of the base of the same round; likewise.
    pub fn of_ratios(values: &[f64], bases: &[f64]) -> Option<Spread> {
        Spread::of(&pairs(values, bases, |value, base| value / base))
    }
}

fn pairs(values: &[f64], bases: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    values
        .iter()
        .zip(bases)
        .map(|(value, base)| of(*value, *base))
        .collect()
}

/// Between two values, the point on the line that joins them (type 7 of Hyndman and Fan, 1996).
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = share * last as f64;
    let (below, rest) = (position.floor() as usize, position.fract());
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(low: f64, median: f64, high: f64) -> Option<Spread> {
        Some(Spread { low, median, high })
    }

    #[test]
    fn of_nothing_there_is_none() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of_differences(&[1.0], &[]), None);
    }

    #[test]
    fn of_one_value_it_is_that_value() {
        assert_eq!(Spread::of(&[3.0]), spread(3.0, 3.0, 3.0));
    }

    #[test]
    fn order_does_not_matter() {
        assert_eq!(Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]), spread(2.0, 3.0, 4.0));
        assert_eq!(Spread::of(&[-1.0, 10.0, -20.0]), spread(-10.5, -1.0, 4.5));
    }

    #[test]
    fn between_two_values_lies_a_line() {
        assert_eq!(Spread::of(&[1.0, 2.0]), spread(1.25, 1.5, 1.75));
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), spread(1.75, 2.5, 3.25));
        assert_eq!(
            Spread::of(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            spread(1.5, 3.0, 4.5)
        );
    }

    #[test]
    fn one_outlier_moves_no_median() {
        assert_eq!(
            Spread::of(&[10.0, 11.0, 9.0, 10.0, 9_000.0]),
            spread(10.0, 10.0, 11.0)
        );
    }

    #[test]
    fn pairs_are_of_the_same_round() {
        // Slow rounds are slow for both, so what one adds to the other stays the same.
        let (values, bases) = ([110.0, 210.0, 160.0], [100.0, 200.0, 150.0]);
        assert_eq!(Spread::of_differences(&values, &bases), spread(10.0, 10.0, 10.0));
        assert_eq!(
            Spread::of_ratios(&[50.0, 75.0, 100.0], &[100.0; 3]),
            spread(0.625, 0.75, 0.875)
        );
    }

    #[test]
    fn a_round_with_one_of_two_does_not_count() {
        assert_eq!(
            Spread::of_differences(&[3.0, 5.0], &[1.0, 1.0, 1.0]),
            spread(2.5, 3.0, 3.5)
        );
    }
}

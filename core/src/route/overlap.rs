//! Whether two routes can lead to the same channel.

use super::Part;

/// One step through a channel's template.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Char(char),
    /// Any one character.
    One,
    /// Any characters, or none.
    Many,
}

/// Whether a name exists that matches both templates; a variable matches one or more arbitrary characters. The bound on
/// the length of names is ignored, so a rare pair counts as overlapping that is not.
///
/// Dynamic programming over the suffixes of both: quadratic in their length, and only at start.
pub(super) fn overlap(a: &[Part], b: &[Part]) -> bool {
    let (a, b) = (steps(a), steps(b));
    // row[j]: whether a[i..] and b[j..] have a name in common; below: the same for i + 1.
    let mut below = vec![false; b.len() + 1];
    for i in (0..=a.len()).rev() {
        let mut row = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            row[j] = match (a.get(i), b.get(j)) {
                (None, None) => true,
                // Many ends here, or takes in a step of the other.
                (Some(Step::Many), other) => below[j] || other.is_some() && row[j + 1],
                (other, Some(Step::Many)) => row[j + 1] || other.is_some() && below[j],
                (Some(Step::One), Some(_)) | (Some(_), Some(Step::One)) => below[j + 1],
                (Some(a), Some(b)) => a == b && below[j + 1],
                (None, Some(_)) | (Some(_), None) => false,
            };
        }
        below = row;
    }
    below[0]
}

fn steps(template: &[Part]) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in template {
        match part {
            Part::Literal(text) => steps.extend(text.chars().map(Step::Char)),
            Part::Variable { .. } => steps.extend([Step::One, Step::Many]),
        }
    }
    steps
}

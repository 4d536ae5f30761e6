//! Sizes and times as people write them, such as `64KiB` and `25s`.
//!
//! Own code, not a crate: what is shown must read back as exactly the same value, and one letter more or less
//! (`KB`, `M`) must be an error, not a guess.
//!
//! ```
//! use fanfare_core::units::{Size, size};
//!
//! assert_eq!(size("64KiB"), Ok(65_536));
//! assert_eq!(Size(65_536).to_string(), "64KiB");
//! assert!(size("64KB").is_err(), "1,000 or 1,024? Nobody knows");
//! ```

use core::fmt;
use core::time::Duration;

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `64KiB`, `1MiB`, `2GiB`, `100B` or plain bytes, in any case.
pub fn size(text: &str) -> Result<usize, String> {
    let bytes = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { scaled(text, &SIZES) };
    let bytes = bytes.and_then(|bytes: u64| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| {
        format!("'{text}' is not a size: write a whole number and B, KiB, MiB or GiB (for example 64KiB)")
    })
}

/// Reads `500ms`, `25s`, `1m` or `2h`, in any case. A bare number is an error: programs disagree on its unit.
pub fn time(text: &str) -> Result<Duration, String> {
    let millis = scaled(text, &TIMES).map(Duration::from_millis);
    millis.ok_or_else(|| format!("'{text}' is not a time: write a whole number and ms, s, m or h (for example 25s)"))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|at: char| !at.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Shows bytes so that [`size`] reads the same number.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &SIZES)
    }
}

/// Shows whole milliseconds so that [`time`] reads the same number.
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIMES)
    }
}

fn show(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |&&(_, factor): &&(&str, u64)| factor == 1 || (value > 0 && value.is_multiple_of(factor));
    let (unit, factor) = units.iter().find(fits).unwrap_or(&("", 1));
    write!(f, "{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", 0), ("65536", 65_536), ("7b", 7), ("64KiB", 65_536), ("1mib", 1 << 20), ("2GIB", 2 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "64KB",
            "64K",
            "1.5MiB",
            "-1",
            "+1",
            " 1",
            "1 KiB",
            "1MiB2",
            "99999999999999999999",
            "18014398509481984KiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("17179869183GiB"), Ok(17_179_869_183 << 30), "the last that fits 64 bits");
        assert!(size("17179869184GiB").is_err());
    }

    #[test]
    fn times_are_read() {
        for (text, millis) in [("0s", 0), ("500ms", 500), ("25s", 25_000), ("1m", 60_000), ("2H", 7_200_000)] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "25", "s", "1.5s", "-1s", "1 s", "1m30s", "5us", "18446744073709551615s"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..2_000 {
            let value = random.u64(..) >> random.u32(1..64) << (round % 8);
            assert_eq!(size(&Size(value).to_string()), Ok(value as usize));
            let time_shown = Time(Duration::from_millis(value)).to_string();
            assert_eq!(time(&time_shown), Ok(Duration::from_millis(value)));
        }
        assert_eq!(Size(0).to_string(), "0B");
        assert_eq!(Size(1_536).to_string(), "1536B");
        assert_eq!(Size(1 << 20).to_string(), "1MiB");
        assert_eq!(Time(Duration::from_secs(60)).to_string(), "1m");
        assert_eq!(Time(Duration::from_millis(1_500)).to_string(), "1500ms");
    }
}

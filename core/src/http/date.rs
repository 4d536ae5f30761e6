//! The Date field, for embedders with a clock.

use core::time::Duration;

const DAY: u64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The last second of the year 9999, which is the last that the format can express.
const LAST: u64 = 253_402_300_799;

/// A time since the Unix epoch as an IMF-fixdate (RFC 9110 §5.6.7).
pub(super) fn imf_fixdate(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs().min(LAST);
    let (days, second) = (seconds / DAY, seconds % DAY);
    // In years that begin in March a leap day is the last day, and months of 31 and 30 days repeat every five:
    // <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
    let since_march_0 = days + 719_468;
    let (era, day_of_era) = (since_march_0 / 146_097, since_march_0 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = (months_since_march + 2) % 12;
    let year = 400 * era + year_of_era + u64::from(month < 2);
    let (weekday, month) = (WEEKDAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_types, reason = "the other implementation takes it")]

    use std::time::SystemTime;

    use super::*;

    #[test]
    fn dates_are_those_of_another_implementation() {
        assert_eq!(imf_fixdate(Duration::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        let leap_days = [951_782_400, 951_868_799, 951_868_800, 1_709_164_800, 1_709_251_200, 4_107_542_400];
        let mut rng = fastrand::Rng::with_seed(1);
        let random = std::iter::repeat_with(|| rng.u64(..=LAST)).take(10_000);
        for seconds in [0, 1, DAY - 1, DAY, LAST].into_iter().chain(leap_days).chain(random) {
            let time = Duration::from_secs(seconds);
            assert_eq!(imf_fixdate(time), httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + time), "{seconds}");
        }
        assert!(imf_fixdate(Duration::MAX).starts_with("Fri, 31 Dec 9999 "));
    }
}

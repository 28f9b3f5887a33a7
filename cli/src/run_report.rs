//! How a bulk run shows itself: a bar on a terminal, a line every few seconds otherwise, and always on standard error.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vultus::ingest::{Observer, Progress};

use crate::output::count;

/// Between two lines when there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Unreadable photos that are named; a run may have a million of them.
const UNREADABLE_NAMED_MAX: u64 = 10;

/// Shows a run.
pub(crate) struct RunReport {
    view: View,
    /// Recent progress, so that the rate follows what is going on now.
    recent: RefCell<Rate>,
    unreadable: Cell<u64>,
}

enum View {
    Bar(ProgressBar),
    Lines { last: Cell<Instant> },
}

impl RunReport {
    /// A bar or lines, whichever suits standard error.
    pub(crate) fn new() -> Self {
        let view = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::no_length();
            bar.set_style(style("{spinner} {pos} photos{msg}"));
            View::Bar(bar)
        } else {
            View::Lines { last: Cell::new(Instant::now()) }
        };
        Self { view, recent: RefCell::default(), unreadable: Cell::new(0) }
    }

    /// Clears the bar; the summary comes next.
    pub(crate) fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
        let unnamed = self.unreadable.get().saturating_sub(UNREADABLE_NAMED_MAX);
        if unnamed > 0 {
            eprintln!("unreadable: {} more", count(unnamed, "photo"));
        }
    }

    fn say(&self, line: &str) {
        match &self.view {
            View::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            View::Lines { .. } => eprintln!("{line}"),
        }
    }
}

impl Observer for RunReport {
    fn progress(&self, progress: &Progress) {
        let rate = self.recent.borrow_mut().update(progress);
        let eta = progress.photos_total.and_then(|total| rate.eta(total.saturating_sub(progress.photos)));
        match &self.view {
            View::Bar(bar) => {
                if let (Some(total), None) = (progress.photos_total, bar.length()) {
                    bar.set_length(total);
                    bar.set_style(style("{bar:30} {pos}/{len} photos{msg}"));
                }
                bar.set_position(progress.photos);
                bar.set_message(tail(progress, rate, eta));
            }
            View::Lines { last } => {
                if last.get().elapsed() >= LINE_EVERY {
                    last.set(Instant::now());
                    let total = progress.photos_total.map(|total| format!("/{total}")).unwrap_or_default();
                    eprintln!("{}{total} photos{}", progress.photos, tail(progress, rate, eta));
                }
            }
        }
    }

    fn unreadable(&self, path: &str, reason: &str) {
        self.unreadable.set(self.unreadable.get() + 1);
        if self.unreadable.get() <= UNREADABLE_NAMED_MAX {
            self.say(&format!("unreadable: {path}: {reason}"));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn tail(progress: &Progress, rate: Rates, eta: Option<Duration>) -> String {
    let eta = eta.map(|eta| format!(" · {} left", duration(eta))).unwrap_or_default();
    format!(" · {} · {:.0} faces/s{eta}", count(progress.faces, "face"), rate.faces)
}

/// `45 s`, `3 min 05 s`, `2 h 07 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Photos and faces a second, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    photos: f64,
    faces: f64,
}

impl Rates {
    fn eta(self, photos_left: u64) -> Option<Duration> {
        let seconds = photos_left as f64 / self.photos;
        // A year is as good as never.
        (self.photos > 0.0 && seconds < 3e7).then(|| Duration::from_secs_f64(seconds))
    }
}

/// Smooths rates over about ten seconds.
#[derive(Debug, Default)]
struct Rate {
    seconds: f64,
    photos: u64,
    faces: u64,
    rates: Rates,
}

impl Rate {
    fn update(&mut self, progress: &Progress) -> Rates {
        let passed = progress.seconds - self.seconds;
        if passed > 0.1 {
            let now = Rates {
                photos: progress.photos.saturating_sub(self.photos) as f64 / passed,
                faces: progress.faces.saturating_sub(self.faces) as f64 / passed,
            };
            // The first figure stands alone; later ones weigh in by the time that they cover.
            let weight = if self.seconds == 0.0 { 1.0 } else { 1.0 - (-passed / 10.0).exp() };
            self.rates.photos += weight * (now.photos - self.rates.photos);
            self.rates.faces += weight * (now.faces - self.rates.faces);
            (self.seconds, self.photos, self.faces) = (progress.seconds, progress.photos, progress.faces);
        }
        self.rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_recent_rate() {
        let mut rate = Rate::default();
        let at = |seconds: f64, photos| Progress { seconds, photos, faces: 2 * photos, ..Progress::default() };
        assert_eq!(rate.update(&at(1.0, 100)), Rates { photos: 100.0, faces: 200.0 });
        for second in 2..120 {
            rate.update(&at(f64::from(second), 100 + 10 * (second as u64 - 1)));
        }
        let eta = rate.rates.eta(100).map(duration);
        assert_eq!(eta.as_deref(), Some("10 s"));
        assert_eq!(Rates::default().eta(1), None);
    }

    #[test]
    fn durations_read_at_a_glance() {
        let texts = [59, 185, 7625].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(texts, ["59 s", "3 min 05 s", "2 h 07 min"]);
    }
}

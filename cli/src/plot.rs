//! Curves as SVG: what a run or a model looks like, without anything to fetch.

use anyhow::anyhow;
use plotters::prelude::*;

/// One pair of axes and the curves on it.
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) curves: Vec<Curve>,
}

/// What one axis shows.
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) scale: Scale,
}

/// How values lie along an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Factors of ten; values of zero or less are left out.
    Log,
    /// From 0 to 1.
    Share,
    /// From the least value to the greatest.
    Fitted,
}

/// Points that are joined.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<[f64; 2]>,
}

const SIZE: (u32, u32) = (760, 380);

/// The plots as one picture, one below the other.
///
/// # Errors
/// None in practice: only if text could not be measured.
pub(crate) fn svg(plots: &[Plot]) -> anyhow::Result<String> {
    let mut text = String::new();
    {
        let size = (SIZE.0, SIZE.1 * plots.len().max(1) as u32);
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow!("drawing: {error}");
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        for (area, plot) in root.split_evenly((plots.len().max(1), 1)).into_iter().zip(plots) {
            plot.draw(&area).map_err(|error| failed(&error))?;
        }
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(text)
}

impl Plot {
    fn draw<D: DrawingBackend>(
        &self,
        area: &DrawingArea<D, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<D::ErrorType>> {
        let curves: Vec<(&str, Vec<(f64, f64)>)> = self
            .curves
            .iter()
            .map(|curve| {
                let place = |[x, y]: &[f64; 2]| Some((self.x.scale.place(*x)?, self.y.scale.place(*y)?));
                (curve.name.as_str(), curve.points.iter().filter_map(place).collect())
            })
            .collect();
        let all = || curves.iter().flat_map(|(_, points)| points);
        let (x, y) = (self.x.scale.range(all().map(|p| p.0)), self.y.scale.range(all().map(|p| p.1)));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .x_label_formatter(&|value| self.x.scale.label(*value))
            .y_label_formatter(&|value| self.y.scale.label(*value))
            .draw()?;
        for (index, (name, points)) in curves.into_iter().enumerate() {
            let style = Palette99::pick(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        if self.curves.len() > 1 {
            let legend = &mut chart.configure_series_labels();
            legend.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).draw()?;
        }
        Ok(())
    }
}

impl Scale {
    /// Where a value lies, if it can be shown.
    fn place(self, value: f64) -> Option<f64> {
        let place = if self == Self::Log { value.log10() } else { value };
        place.is_finite().then_some(place)
    }

    fn range(self, places: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
        if self == Self::Share {
            return 0.0..1.0;
        }
        let (low, high) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p), high.max(p)));
        match low < high {
            true if self == Self::Linear => low.min(0.0)..high,
            true => low..high,
            // Nothing, or one value: some range around it.
            false => (if low.is_finite() { low } else { 0.0 } - 0.5)..(if low.is_finite() { low } else { 0.0 } + 0.5),
        }
    }

    fn label(self, place: f64) -> String {
        match self {
            Self::Log if place == place.round() => format!("1e{place:.0}"),
            Self::Log => format!("{:.1e}", 10f64.powf(place)),
            Self::Fitted => format!("{place:.4}").trim_end_matches('0').trim_end_matches('.').to_owned(),
            Self::Share => format!("{:.0} %", 100.0 * place),
            Self::Linear if place.abs() >= 1000.0 => format!("{:.0}k", place / 1000.0),
            Self::Linear => format!("{place:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    #[test]
    fn curves_of_any_numbers_become_a_picture() {
        let curve = |name: &str, points: &[[f64; 2]]| Curve { name: name.into(), points: points.to_vec() };
        let plot = |scale, curves| Plot {
            title: "A <title> & more".into(),
            x: Axis { label: "rate", scale },
            y: Axis { label: "share", scale: Scale::Share },
            curves,
        };
        let curves = vec![curve("one", &[[1e-4, 0.1], [0.1, 0.9], [0.0, 0.5], [f64::NAN, 0.5]]), curve("two", &[])];
        let text = svg(&[plot(Scale::Log, curves), plot(Scale::Linear, Vec::new())]).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(
            text.contains("A &lt;title&gt; &amp; more") && text.contains("1e-3") && text.contains("\ntwo\n"),
            "{text}"
        );
        // Two of the points can be shown, and what can't is left out.
        assert!(!text.contains("NaN") && !text.contains("inf"));
        assert_eq!(
            [Scale::Linear.label(2500.0), Scale::Linear.label(0.5), Scale::Linear.label(3.0)],
            ["2k", "0.5", "3"]
        );
    }
}

//! A report as a picture: recall over false-hit rate, and how often confidence comes true. One SVG file (W3C SVG
//! 1.1) without scripts or fonts of its own, which follows the viewer's light or dark scheme.
//!
//! Called by `cli::eval`. Written out rather than by a plotting crate, which would be many times the size of this.

use std::fmt::{self, Display, Formatter};

use super::measure::Rate;
use super::report::{Curve, Report};

/// The report, drawn.
pub struct Plot<'a>(pub &'a Report);

/// Plain rules, without variables: viewers that are no browsers know no more.
pub(super) const STYLE: &str = "\
svg{font:13px system-ui,sans-serif}text{fill:#1f2328}.title{font-weight:600;font-size:15px}.paper{fill:#fff}\
.grid{stroke:#d0d7de;stroke-width:1}.ideal{stroke:#1f2328;stroke-dasharray:4 4;opacity:.5}\
.line{fill:none;stroke-width:2}.a{stroke:#8c6d1f;stroke-dasharray:6 3}.b,.bar{stroke:#0969da}\
.bar,.whisker{stroke-width:1.5}.bin{fill:#0969da}.dot{fill:#cf222e}.whisker{stroke:#cf222e}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}.grid{stroke:#3d444d}.ideal{stroke:#e6edf3}\
.a{stroke:#d4a72c}.b,.bar{stroke:#58a6ff}.bin{fill:#58a6ff}.dot{fill:#ff7b72}.whisker{stroke:#ff7b72}}";

/// The side of a panel's square, in the picture's units.
pub(super) const SIDE: f64 = 340.0;

/// Where a panel begins and how it places what it shows.
#[derive(Clone, Copy)]
struct Panel {
    left: f64,
    top: f64,
    /// Whether the horizontal axis is stretched near 0, where false-hit rates are of interest.
    stretched: bool,
}

const CURVES: Panel = Panel { left: 70.0, top: 60.0, stretched: true };
const TRUTH: Panel = Panel { left: 510.0, top: 60.0, stretched: false };

impl Panel {
    fn x(self, share: f64) -> f64 {
        self.left + SIDE * if self.stretched { share.sqrt() } else { share }
    }

    fn y(self, share: f64) -> f64 {
        self.top + SIDE * (1.0 - share)
    }

    /// The grid with its figures, the title, and what the axes show.
    fn frame(self, f: &mut Formatter<'_>, title: &str, axes: [&str; 2]) -> fmt::Result {
        let (right, bottom) = (self.left + SIDE, self.top + SIDE);
        writeln!(f, r#"<text class="title" x="{}" y="{}">{title}</text>"#, self.left, self.top - 24.0)?;
        let across: &[f64] =
            if self.stretched { &[0.0, 0.01, 0.03, 0.1, 0.3, 1.0] } else { &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0] };
        for share in across {
            let (x, percent) = (self.x(*share), share * 100.0);
            writeln!(f, r#"<path class="grid" d="M{x:.1} {}V{bottom}"/>"#, self.top)?;
            writeln!(
                f,
                r#"<text x="{x:.1}" y="{}" text-anchor="middle">{percent:.0}</text>"#,
                bottom + 18.0
            )?;
        }
        for share in [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] {
            let (y, percent) = (self.y(share), share * 100.0);
            writeln!(f, r#"<path class="grid" d="M{} {y:.1}H{right}"/>"#, self.left)?;
            let (x, y) = (self.left - 8.0, y + 4.0);
            writeln!(f, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{percent:.0}</text>"#)?;
        }
        let [across, up] = axes;
        let (middle, height) = (self.left + SIDE / 2.0, self.top + SIDE / 2.0);
        writeln!(f, r#"<text x="{middle}" y="{}" text-anchor="middle">{across}</text>"#, bottom + 40.0)?;
        let x = self.left - 44.0;
        writeln!(
            f,
            r#"<text x="{x}" y="{height}" text-anchor="middle" transform="rotate(-90 {x} {height})">{up}</text>"#
        )
    }

    /// The interval of a share, upright.
    fn whisker(self, f: &mut Formatter<'_>, class: &str, at: f64, rate: Rate) -> fmt::Result {
        let (x, from, to) = (self.x(at), self.y(rate.low), self.y(rate.high));
        writeln!(f, r#"<path class="{class}" d="M{x:.1} {from:.1}V{to:.1}"/>"#)
    }
}

impl Display for Plot<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 490" width="880" height="490" role="img">"#
        )?;
        writeln!(
            f,
            "<title>Reuse over {} labelled pairs of {}</title>",
            report.pairs.total,
            Escaped(&report.file)
        )?;
        writeln!(f, r#"<style>{STYLE}</style><rect class="paper" width="880" height="490"/>"#)?;
        self.curves(f)?;
        self.truth(f)?;
        writeln!(f, "</svg>")
    }
}

impl Plot<'_> {
    fn curves(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { curves, configured, .. } = self.0;
        CURVES.frame(
            f,
            "What is reused",
            [
                "false-hit rate: wrong reuse, % of pairs labelled 0",
                "recall: right reuse, % of pairs labelled 1",
            ],
        )?;
        for (class, Curve { name, points }) in ["a", "b"].into_iter().zip(curves) {
            write!(f, r#"<path class="line {class}" d=""#)?;
            for (at, (wrong, right)) in points.iter().enumerate() {
                let step = if at == 0 { 'M' } else { 'L' };
                write!(f, "{step}{:.1} {:.1}", CURVES.x(*wrong), CURVES.y(*right))?;
            }
            writeln!(f, r#""><title>{name}</title></path>"#)?;
        }
        if let (Some(wrong), Some(right)) = (configured.false_hit_rate.value, configured.recall.value) {
            CURVES.whisker(f, "whisker", wrong, configured.recall)?;
            let (from, to, y) = (
                CURVES.x(configured.false_hit_rate.low),
                CURVES.x(configured.false_hit_rate.high),
                CURVES.y(right),
            );
            writeln!(f, r#"<path class="whisker" d="M{from:.1} {y:.1}H{to:.1}"/>"#)?;
            writeln!(f, r#"<circle class="dot" cx="{:.1}" cy="{y:.1}" r="5"/>"#, CURVES.x(wrong))?;
        }
        let y = CURVES.top + SIDE + 70.0;
        writeln!(
            f,
            r#"<path class="line b" d="M70 {0}h26"/><text x="102" y="{1}">the decision</text>"#,
            y - 4.0,
            y
        )?;
        writeln!(
            f,
            r#"<path class="line a" d="M195 {0}h26"/><text x="227" y="{1}">similarity alone</text>"#,
            y - 4.0,
            y
        )?;
        writeln!(
            f,
            r#"<circle class="dot" cx="351" cy="{}" r="5"/><text x="361" y="{y}">as configured</text>"#,
            y - 4.0
        )
    }

    fn truth(&self, f: &mut Formatter<'_>) -> fmt::Result {
        TRUTH.frame(
            f,
            "Whether confidence comes true",
            ["confidence, %", "pairs labelled 1, % of those so sure"],
        )?;
        let (left, top, right, bottom) = (TRUTH.left, TRUTH.top, TRUTH.left + SIDE, TRUTH.top + SIDE);
        writeln!(f, r#"<path class="ideal" d="M{left} {bottom}L{right} {top}"/>"#)?;
        let bins = self.0.reliability.iter().flat_map(|found| &found.bins);
        let most = bins.clone().map(|bin| bin.observed.of).max().unwrap_or(1).max(1);
        for bin in bins {
            TRUTH.whisker(f, "bar", bin.confidence, bin.observed)?;
            let radius = 3.0 + 5.0 * (f64::from(bin.observed.of) / f64::from(most)).sqrt();
            let (x, y) = (TRUTH.x(bin.confidence), TRUTH.y(bin.observed.value.unwrap_or_default()));
            writeln!(
                f,
                r#"<circle class="bin" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}"><title>{} pairs</title></circle>"#,
                bin.observed.of
            )?;
        }
        let y = bottom + 70.0;
        writeln!(f, r#"<text x="{left}" y="{y}">larger dots: more pairs; bars: 95 % intervals</text>"#)
    }
}

/// Text inside an element (XML 1.0 §2.4); what XML cannot hold at all is left out.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '\t' => f.write_str(" ")?,
                '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

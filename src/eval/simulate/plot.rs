//! A simulation as a picture: the error so far and the hit rate so far, each run a line, against the bound.

use std::fmt::{self, Display, Formatter};

use super::{Counts, Simulation};
use crate::eval::plot::{SIDE, STYLE};

/// The simulation, drawn.
pub struct Plot<'a>(pub &'a Simulation);

/// Where a panel begins, what its vertical axis ends with, and what it shows.
struct Panel {
    left: f64,
    most: f64,
    title: &'static str,
    of: fn(Counts) -> Option<f64>,
}

const TOP: f64 = 60.0;

impl Display for Plot<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plan = &self.0.plan;
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 490" width="880" height="490" role="img">"#
        )?;
        writeln!(f, "<title>Mode verified over {} runs of {} requests</title>", plan.runs, plan.requests)?;
        writeln!(f, r#"<style>{STYLE}</style><rect class="paper" width="880" height="490"/>"#)?;
        let error = Panel {
            left: 70.0,
            most: (plan.limits.max_error * 3.0).clamp(0.01, 1.0),
            title: "Wrong of those served by meaning, %",
            of: Counts::error,
        };
        let hits =
            Panel { left: 510.0, most: 1.0, title: "Served by meaning, % of lookups", of: Counts::hit_rate };
        self.panel(f, &error)?;
        let y = error.y(plan.limits.max_error);
        writeln!(f, r#"<path class="ideal" d="M70 {y:.1}H{}"><title>the bound</title></path>"#, 70.0 + SIDE)?;
        self.panel(f, &hits)?;
        if let Some(share) = self.0.right_candidates {
            let y = hits.y(share);
            writeln!(
                f,
                r#"<path class="ideal" d="M510 {y:.1}H{}"><title>a right candidate was there</title></path>"#,
                510.0 + SIDE
            )?;
        }
        let y = TOP + SIDE + 70.0;
        writeln!(f, r#"<text x="70" y="{y}">dashed: the bound; each line is a run</text>"#)?;
        writeln!(f, r#"<text x="510" y="{y}">dashed: a right candidate was there</text>"#)?;
        writeln!(f, "</svg>")
    }
}

impl Plot<'_> {
    fn panel(&self, f: &mut Formatter<'_>, panel: &Panel) -> fmt::Result {
        let requests = self.0.plan.requests;
        let (right, bottom, left) = (panel.left + SIDE, TOP + SIDE, panel.left);
        writeln!(f, r#"<text class="title" x="{left}" y="{}">{}</text>"#, TOP - 24.0, panel.title)?;
        for step in 0..=5_u32 {
            let part = f64::from(step) / 5.0;
            let (y, percent) = (panel.y(part * panel.most), part * panel.most * 100.0);
            writeln!(f, r#"<path class="grid" d="M{left} {y:.1}H{right}"/>"#)?;
            writeln!(
                f,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{percent:.1}</text>"#,
                left - 8.0,
                y + 4.0
            )?;
            let (x, number) = (left + SIDE * part, f64::from(requests) * part);
            writeln!(f, r#"<path class="grid" d="M{x:.1} {TOP}V{bottom}"/>"#)?;
            writeln!(f, r#"<text x="{x:.1}" y="{}" text-anchor="middle">{number:.0}</text>"#, bottom + 18.0)?;
        }
        writeln!(
            f,
            r#"<text x="{}" y="{}" text-anchor="middle">requests</text>"#,
            left + SIDE / 2.0,
            bottom + 40.0
        )?;
        for run in &self.0.runs {
            let last = f64::from(u32::try_from(run.curve.len()).unwrap_or(u32::MAX)).max(1.0);
            let points = run.curve.iter().zip(1_u32..).filter_map(|(counts, at)| {
                let share = (panel.of)(*counts)?;
                Some((left + SIDE * f64::from(at) / last, panel.y(share)))
            });
            let mut path = String::new();
            for (x, y) in points {
                let step = if path.is_empty() { 'M' } else { 'L' };
                path.extend([format!("{step}{x:.1} {y:.1}")]);
            }
            if !path.is_empty() {
                writeln!(
                    f,
                    r#"<path class="line b" style="stroke-width:1;opacity:.6" d="{path}"><title>run {}</title></path>"#,
                    run.seed
                )?;
            }
        }
        Ok(())
    }
}

impl Panel {
    /// Where a share is drawn; what is above the axis is drawn at its end.
    fn y(&self, share: f64) -> f64 {
        TOP + SIDE * (1.0 - (share / self.most).min(1.0))
    }
}

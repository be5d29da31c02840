//! A simulation for people, on a terminal.

use std::fmt::{self, Display, Formatter};

use super::{Run, Simulation};

/// The simulation, written for people.
pub struct Text<'a>(pub &'a Simulation);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Simulation { plan, prompts, needs, runs, .. } = self.0;
        writeln!(
            f,
            "Mode verified over {} runs of {} requests: {prompts} prompts of {needs} needs, an entry lives for {} \
             requests",
            plan.runs, plan.requests, plan.lifetime
        )?;
        writeln!(
            f,
            "To keep to: {} of semantic hits wrong, with a confidence of {}; the judge errs in {} of comparisons, of \
             which the decision knows {}",
            percent(Some(plan.limits.max_error)),
            percent(Some(plan.limits.confidence)),
            percent(Some(plan.judge_error)),
            percent(Some(plan.limits.comparison_error)),
        )?;
        writeln!(
            f,
            "\n  {:>4} {:>7} {:>9} {:>11} {:>9} {:>8} {:>7} {:>9} {:>6} {:>9}",
            "run",
            "exact",
            "looked up",
            "a right one",
            "explored",
            "served",
            "wrong",
            "hit rate",
            "error",
            "setbacks"
        )?;
        for run in runs {
            row(f, run)?;
        }
        writeln!(
            f,
            "\nServed by meaning: {} of requests that the exact layer did not serve; {} had a right candidate",
            percent(self.0.hit_rate),
            percent(self.0.right_candidates)
        )?;
        writeln!(
            f,
            "Wrong of these: {}; runs that ended over the limit: {}; runs that served anything: {} of {}",
            percent(self.0.error),
            percent(Some(self.0.exceeded)),
            self.0.served,
            runs.len()
        )
    }
}

fn row(f: &mut Formatter<'_>, run: &Run) -> fmt::Result {
    let end = run.end;
    writeln!(
        f,
        "  {:>4} {:>7} {:>9} {:>11} {:>9} {:>8} {:>7} {:>9} {:>6} {:>9}",
        run.seed,
        run.exact,
        end.requests,
        end.right_candidates,
        end.explored,
        end.served,
        end.wrong,
        percent(end.hit_rate()),
        percent(end.error()),
        run.setbacks
    )
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

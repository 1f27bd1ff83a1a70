//! The status page: plain HTML, without scripts.

use groundtackle_health_check::{Audience, Outcome, ServiceLevel, View};

use crate::json::time;

/// Contrasts are those of WCAG 2 AA: at least 4.5 to 1 for all text, in both schemes. A test computes them.
pub(crate) const STYLE: &str = include_str!("status.css");

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// The outcome in words: a colour alone says nothing to who can't see it.
fn badge(outcome: Outcome) -> String {
    let word = match outcome {
        Outcome::Pass => "Works",
        Outcome::Warn => "Works, with a warning",
        Outcome::Unknown => "Not known",
        Outcome::Fail => "Does not work",
    };
    format!("<span class=\"badge {outcome}\">{word}</span>")
}

pub(crate) fn html(view: &View, audience: Audience, title: &str) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"status.css\">\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
         <p class=\"overall\">{}</p>\n<p>As of <time datetime=\"{at}\">{at}</time></p>\n",
        badge(view.readiness.outcome),
        at = time(view.unix_millis),
    );
    let checks: String = view
        .readings
        .iter()
        .filter_map(|reading| audience.sees(reading))
        .map(|seen| {
            let mut item = format!(
                "<li>\n<h3>{}</h3>\n{}\n",
                escaped(seen.name.as_str()),
                badge(seen.outcome)
            );
            if let Some(reason) = seen.reason {
                item += &format!("<p>{}", escaped(reason.cause.as_str()));
                if let Some(root) = &reason.caused_by {
                    item += &format!(", caused by {}", escaped(root.as_str()));
                }
                if let Some(detail) = &reason.detail {
                    item += &format!(": {}", escaped(detail));
                }
                item += &format!("; since {}", time(reason.since_unix_millis));
                if reason.in_maintenance {
                    item += "; under maintenance";
                }
                item += "</p>\n";
            }
            item + "</li>\n"
        })
        .collect();
    if !checks.is_empty() {
        page += &format!("<h2>Checks</h2>\n<ul>\n{checks}</ul>\n");
    }
    if audience == Audience::Operator && !view.service_levels.is_empty() {
        let levels: String = view.service_levels.iter().map(service_level).collect();
        page += &format!("<h2>Service levels</h2>\n<ul>\n{levels}</ul>\n");
    }
    page + "</main>\n</body>\n</html>\n"
}

fn service_level(level: &ServiceLevel) -> String {
    let ratio = level.level.map_or("not measured".to_owned(), |ratio| {
        format!("{:.3} %", ratio * 100.0)
    });
    let left = if level.budget > 0 {
        level.budget_left as f64 / level.budget as f64 * 100.0
    } else {
        0.0
    };
    let firing = level.alerts.iter().filter(|alert| alert.firing);
    let firing: Vec<_> = firing.map(|alert| alert.severity.as_str()).collect();
    let alerts = if firing.is_empty() {
        String::new()
    } else {
        format!("; alert: {}", firing.join(", "))
    };
    format!(
        "<li>\n<h3>{}</h3>\n<p>{ratio} of {:.3} %; {left:.1} % of the error budget left{alerts}</p>\n</li>\n",
        escaped(level.objective.as_str()),
        level.target * 100.0,
    )
}

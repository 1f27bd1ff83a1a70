//! The status page: plain HTML, without scripts.

use groundtackle_health_check::{Audience, Outcome, Seen, ServiceLevel, View};

use crate::json::time;

/// Contrasts are those of WCAG 2 AA: at least 4.5 to 1 for all text, in both schemes. A test computes them.
pub(crate) const STYLE: &str = include_str!("status.css");

/// A page that is left open shows what is.
const RENEWED_SECS: u32 = 30;

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
const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "Works",
        Outcome::Warn => "Works, with a warning",
        Outcome::Unknown => "Not known",
        Outcome::Fail => "Does not work",
    }
}

fn badge(outcome: Outcome) -> String {
    format!("<span class=\"badge {outcome}\">{}</span>", word(outcome))
}

/// In the largest unit of which there is more than one.
fn lasting(millis: u64) -> String {
    let secs = millis / 1_000;
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

pub(crate) fn html(view: &View, audience: Audience, title: &str) -> String {
    let title = escaped(title);
    let outcome = view.readiness.outcome;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta http-equiv=\"refresh\" content=\"{RENEWED_SECS}\">\n\
         <title>{word}: {title}</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <link rel=\"stylesheet\" href=\"status.css\">\n</head>\n<body>\n<main>\n<header class=\"{outcome}\">\n\
         <h1>{title}</h1>\n<p class=\"overall\">{word}</p>\n</header>\n\
         <p class=\"why\">As of <time datetime=\"{at}\">{at}</time>; renewed every {RENEWED_SECS} s.",
        word = word(outcome),
        at = time(view.unix_millis),
    );
    let mut seen: Vec<_> = view
        .readings
        .iter()
        .filter_map(|reading| audience.sees(reading))
        .collect();
    // What needs somebody comes first.
    seen.sort_by_key(|seen| std::cmp::Reverse(seen.outcome));
    let counts: Vec<_> = Outcome::ALL
        .iter()
        .rev()
        .filter_map(|outcome| {
            let of = seen.iter().filter(|seen| seen.outcome == *outcome).count();
            (of > 0).then(|| format!("{of} {outcome}"))
        })
        .collect();
    if !counts.is_empty() {
        page += &format!(" Checks: {}.", counts.join(", "));
    }
    page += "</p>\n";
    if audience == Audience::Operator && !view.waiting_for.is_empty() {
        let waits = view.waiting_for.iter().map(|waiting| {
            let more = match waiting.holds_up {
                0 => String::new(),
                others => format!("; {others} more wait for it"),
            };
            format!(
                "<li>\n<h3>{}</h3>\n<p class=\"why\">{}{more}</p>\n</li>\n",
                escaped(waiting.name.as_str()),
                escaped(waiting.cause.as_str())
            )
        });
        page += &format!(
            "<h2>Waiting for</h2>\n<ul>\n{}</ul>\n",
            waits.collect::<String>()
        );
    }
    let checks: String = seen.iter().map(|seen| check(view, seen)).collect();
    if !checks.is_empty() {
        page += &format!("<h2>Checks</h2>\n<ul>\n{checks}</ul>\n");
    }
    if audience == Audience::Operator && !view.service_levels.is_empty() {
        let levels: String = view.service_levels.iter().map(service_level).collect();
        page += &format!("<h2>Service levels</h2>\n<ul>\n{levels}</ul>\n");
    }
    page + "</main>\n</body>\n</html>\n"
}

fn check(view: &View, seen: &Seen<'_>) -> String {
    let outcome = seen.outcome;
    let mut item = format!(
        "<li class=\"{outcome}\">\n<div>\n<h3>{}</h3>\n{}\n</div>\n",
        escaped(seen.name.as_str()),
        badge(outcome)
    );
    if let Some(reason) = seen.reason {
        item += &format!("<p class=\"why\">{}", escaped(reason.cause.as_str()));
        if let Some(root) = &reason.caused_by {
            item += &format!(", caused by {}", escaped(root.as_str()));
        }
        if let Some(detail) = &reason.detail {
            item += &format!(": {}", escaped(detail));
        }
        let since = reason.since_unix_millis;
        item += &format!(
            "; for <time datetime=\"{}\">{}</time>",
            time(since),
            lasting(view.unix_millis.saturating_sub(since))
        );
        if reason.in_maintenance {
            item += "; under maintenance";
        }
        item += "</p>\n";
    }
    item + "</li>\n"
}

fn service_level(level: &ServiceLevel) -> String {
    let ratio = level.level.map_or("not measured yet".to_owned(), |ratio| {
        format!("{:.3} %", ratio * 100.0)
    });
    let left = if level.budget > 0 {
        level.budget_left as f64 / level.budget as f64
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
    let percent = left * 100.0;
    format!(
        "<li>\n<div>\n<h3>{}</h3>\n<span>{ratio}</span>\n</div>\n\
         <meter min=\"0\" max=\"1\" low=\"0.25\" optimum=\"1\" value=\"{:.3}\">{percent:.1} %</meter>\n\
         <p class=\"why\">{percent:.1} % of the error budget left; at least {:.3} % is the objective{alerts}</p>\n</li>\n",
        escaped(level.objective.as_str()),
        left.clamp(0.0, 1.0),
        level.target * 100.0,
    )
}

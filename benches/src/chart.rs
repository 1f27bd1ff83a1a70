//! Horizontal bars as SVG: readable in light and dark, and by those who don't see it.

use std::fmt::Write;

use crate::tables::Series;

const WIDTH: f64 = 820.0;
/// Of names, before the bars, and of numbers after them.
const NAMES: f64 = 360.0;
const NUMBERS: f64 = 70.0;
const BAR: f64 = 26.0;
const TOP: f64 = 62.0;
/// Of a name: what is longer is cut.
const LETTERS: usize = 54;

/// The picture.
#[must_use]
pub fn svg(title: &str, series: &Series, below: &str) -> String {
    let most = series.bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let height = BAR.mul_add(series.bars.len() as f64, TOP) + 30.0;
    let label = format!("{title}: {}", series.what);
    let told: Vec<_> = series
        .bars
        .iter()
        .map(|(name, number)| format!("{name} {number}"))
        .collect();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#1f2328\">\n<title>{}</title>\n<desc>{}</desc>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"15\" font-weight=\"600\">{}</text>\n<text x=\"16\" y=\"46\" fill=\"#59636e\">{}</text>\n",
        escaped(&label),
        escaped(&told.join("; ")),
        escaped(title),
        escaped(&series.what),
    );
    for (at, (name, number)) in series.bars.iter().enumerate() {
        let y = BAR.mul_add(at as f64, TOP);
        let middle = y + BAR / 2.0 + 3.0;
        let full = WIDTH - NAMES - NUMBERS - 16.0;
        let width = if most > 0.0 {
            (number / most * full).max(1.0)
        } else {
            1.0
        };
        let color = if at == 0 { "#0b6bcb" } else { "#8c959f" };
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES:.0}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.0}\" rx=\"2\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{middle:.1}\">{number}</text>",
            NAMES - 10.0,
            escaped(&cut(name)),
            y + 3.0,
            BAR - 8.0,
            NAMES + width + 8.0,
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"16\" y=\"{:.0}\" font-size=\"11\" fill=\"#59636e\">{}</text>\n</svg>",
        height - 12.0,
        escaped(below)
    );
    out
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(LETTERS) {
        None => name.to_owned(),
        Some((at, _)) => format!("{}…", name.get(..at).unwrap_or(name).trim_end()),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_number_says() {
        let bars = vec![
            ("ours <1>".to_owned(), 1.0),
            ("restic".to_owned(), 4.0),
            ("n".repeat(80), 0.0),
        ];
        let what = "times ours".to_owned();
        let picture = svg("First backup", &Series { what, bars }, "one machine & co");
        let widths: Vec<f64> = picture
            .split("width=\"")
            .filter_map(|rest| rest.split_once('"')?.0.parse().ok())
            .collect();
        assert_eq!(widths, [93.5, 374.0, 1.0]);
        assert!(picture.contains("ours &lt;1&gt;") && picture.contains("one machine &amp; co"));
        assert!(picture.contains(&format!(">{}…<", "n".repeat(LETTERS))));
    }
}

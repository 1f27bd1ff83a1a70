//! Tables in what a measurement prints, and what of them is worth a picture.

/// What a table's ratio is called: in its head, or before a row.
const RATIOS: [&str; 6] = [
    "times ours",
    "store's rate to this one's",
    "ratio",
    "of raw",
    "of the raw engine's",
    "coin operations per CPU s",
];

/// A Markdown table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The heading before it, or else the head of its first column.
    pub title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// What one picture shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the numbers are.
    pub what: String,
    /// Names and numbers, in the table's order.
    pub bars: Vec<(String, f64)>,
}

/// All tables of a text, in order.
#[must_use]
pub fn tables(text: &str) -> Vec<Table> {
    let mut found: Vec<Table> = Vec::new();
    let (mut heading, mut within) = ("", false);
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            heading = title.trim();
        }
        let Some(cells) = cells(line) else {
            within = false;
            continue;
        };
        match found.last_mut().filter(|_| within) {
            None => {
                let first = cells.first().map(String::as_str).unwrap_or_default();
                let title = if heading.is_empty() { first } else { heading }.to_owned();
                heading = "";
                found.push(Table {
                    title,
                    head: cells,
                    rows: Vec::new(),
                });
            }
            Some(_) if cells.iter().all(|cell| cell.chars().all(|c| c == '-')) => {}
            Some(table) => table.rows.push(cells),
        }
        within = true;
    }
    found
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(
        inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect(),
    )
}

impl Table {
    /// The column or the row that is called as ratios are; nothing where there is none, or fewer than two numbers in it.
    #[must_use]
    pub fn ratios(&self) -> Option<Series> {
        RATIOS.iter().find_map(|&what| {
            let bars: Vec<_> = match self.head.iter().position(|head| head == what) {
                Some(column) => self
                    .rows
                    .iter()
                    .filter_map(|row| Some((row.first()?, number(row.get(column)?)?)))
                    .map(|(name, number)| (name.replace('`', ""), number))
                    .collect(),
                None => {
                    let row = self
                        .rows
                        .iter()
                        .find(|row| row.first().is_some_and(|name| name == what))?;
                    let numbered = self.head.iter().zip(row).skip(1);
                    numbered
                        .filter_map(|(name, cell)| Some((name.clone(), number(cell)?)))
                        .collect()
                }
            };
            (bars.len() > 1).then(|| Series {
                what: what.to_owned(),
                bars,
            })
        })
    }
}

fn number(cell: &str) -> Option<f64> {
    cell.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "one machine\n\n| first backup | wall s | times ours |\n|---|---|---|\n| ours | 1.62 | 1.00 |\n| restic | 10.62 | 6.55 |\n\
        | borg | - | - |\n\nsome words | and a line\n### Blocks\n\n| | store | `raw` |\n|---|---|---|\n| wall s | 2 | 1 |\n| of the raw engine's | 0.42 | 1.00 |\n\
        \n| calls | a second |\n|---|---|\n| 1 | 5 |\n";

    #[test]
    fn ratios_are_found_in_columns_and_in_rows() {
        let found = tables(PRINTED);
        let titles: Vec<_> = found.iter().map(|table| table.title.as_str()).collect();
        assert_eq!(titles, ["first backup", "Blocks", "calls"]);
        let ratios: Vec<_> = found.iter().map(Table::ratios).collect();
        let series = |what: &str, bars: &[(&str, f64)]| {
            let bars = bars.iter().map(|&(name, at)| (name.to_owned(), at));
            Some(Series {
                what: what.to_owned(),
                bars: bars.collect(),
            })
        };
        assert_eq!(
            ratios,
            [
                series("times ours", &[("ours", 1.0), ("restic", 6.55)]),
                series("of the raw engine's", &[("store", 0.42), ("`raw`", 1.0)]),
                None,
            ]
        );
    }
}

//! The table: each figure, the floor's figure from the same run, and whether the figure keeps its limit.

/// The limit of a figure.
#[derive(Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    TimesFloor(f64),
    FloorPlus(f64),
    /// No limit: for information.
    Info,
}
use Limit::*;

/// One figure, measured several times. The floor is measured as often, each time right after the value.
pub struct Row {
    pub part: &'static str,
    pub what: String,
    pub values: Vec<f64>,
    pub floors: Vec<f64>,
    pub limit: Limit,
}

impl Row {
    pub fn new(part: &'static str, what: impl Into<String>, values: Vec<f64>, limit: Limit) -> Row {
        Row {
            part,
            what: what.into(),
            values,
            floors: vec![],
            limit,
        }
    }

    /// With the figures of the floor.
    pub fn with_floor(self, floors: Vec<f64>) -> Row {
        Row { floors, ..self }
    }

    /// The value divided by the floor, of each pair.
    fn ratios(&self) -> Vec<f64> {
        self.values
            .iter()
            .zip(&self.floors)
            .map(|(value, floor)| value / floor)
            .collect()
    }

    fn is_met(&self) -> Option<bool> {
        let value = median(&self.values);
        match self.limit {
            AtMost(limit) => Some(value <= limit),
            AtLeast(limit) => Some(value >= limit),
            TimesFloor(limit) => Some(median(&self.ratios()) <= limit),
            FloorPlus(more) => Some(value <= median(&self.floors) + more),
            Info => None,
        }
    }

    fn cells(&self) -> [String; 7] {
        let show = |figures: &[f64]| short(median(figures)) + &range(figures);
        let limit = match self.limit {
            AtMost(limit) => format!("≤ {}", short(limit)),
            AtLeast(limit) => format!("≥ {}", short(limit)),
            TimesFloor(limit) => format!("≤ {limit} × floor"),
            FloorPlus(more) => format!("≤ floor + {}", short(more)),
            Info => String::new(),
        };
        let (floor, ratio) = match self.floors[..] {
            [] => Default::default(),
            _ => (show(&self.floors), short(median(&self.ratios()))),
        };
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let (part, what, value) = (self.part.to_string(), self.what.clone(), show(&self.values));
        [part, what, value, floor, ratio, limit, met.to_string()]
    }
}

/// Prints the table in Markdown.
pub fn print(rows: &[Row]) {
    let head = [
        "part",
        "what",
        "median (min…max)",
        "floor",
        "ratio",
        "limit",
        "met",
    ];
    let mut lines = vec![head.map(str::to_string)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    lines.insert(1, widths.map(|width| "-".repeat(width)));
    for line in lines {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// ` (min…max)`; empty if all figures are equal.
fn range(figures: &[f64]) -> String {
    let min = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let max = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if min == max {
        return String::new();
    }
    format!(" ({}…{})", short(min), short(max))
}

/// The figure with about three significant digits.
fn short(figure: f64) -> String {
    let whole = figure.round() as i64;
    match figure.abs() {
        n if n >= 1e6 => format!(
            "{},{:03},{:03}",
            whole / 1_000_000,
            whole / 1000 % 1000,
            whole % 1000
        ),
        n if n >= 1e3 => format!("{},{:03}", whole / 1000, whole % 1000),
        n if n >= 100.0 || n.fract() == 0.0 => whole.to_string(),
        n if n >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

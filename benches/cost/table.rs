//! The table: for each goal what was measured, what the floor took in the same run, and whether it is
//! what was wanted.

/// What is wanted of a figure.
#[derive(Clone, Copy)]
pub enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    TimesFloor(f64),
    FloorPlus(f64),
    /// Nothing: it explains another row.
    Told,
}
use Wanted::*;

/// One figure, measured several times. The floor was measured as often, each right after its value.
pub struct Row {
    pub goal: u8,
    pub what: String,
    pub values: Vec<f64>,
    pub floors: Vec<f64>,
    pub wanted: Wanted,
}

impl Row {
    pub fn new(goal: u8, what: impl Into<String>, values: Vec<f64>, wanted: Wanted) -> Row {
        Row {
            goal,
            what: what.into(),
            values,
            floors: vec![],
            wanted,
        }
    }

    pub fn over(self, floors: Vec<f64>) -> Row {
        Row { floors, ..self }
    }

    /// Value by floor, of each pair.
    fn ratios(&self) -> Vec<f64> {
        self.values
            .iter()
            .zip(&self.floors)
            .map(|(value, floor)| value / floor)
            .collect()
    }

    fn reached(&self) -> Option<bool> {
        let value = median(&self.values);
        match self.wanted {
            AtMost(limit) => Some(value <= limit),
            AtLeast(limit) => Some(value >= limit),
            TimesFloor(limit) => Some(median(&self.ratios()) <= limit),
            FloorPlus(more) => Some(value <= median(&self.floors) + more),
            Told => None,
        }
    }

    fn cells(&self) -> [String; 7] {
        let told = |figures: &[f64]| short(median(figures)) + &range(figures);
        let wanted = match self.wanted {
            AtMost(limit) => format!("≤ {}", short(limit)),
            AtLeast(limit) => format!("≥ {}", short(limit)),
            TimesFloor(limit) => format!("≤ {limit} × floor"),
            FloorPlus(more) => format!("≤ floor + {}", short(more)),
            Told => String::new(),
        };
        let (floor, ratio) = match self.floors[..] {
            [] => Default::default(),
            _ => (told(&self.floors), short(median(&self.ratios()))),
        };
        let reached = match self.reached() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let goal = self.goal.to_string();
        let (what, value) = (self.what.clone(), told(&self.values));
        [goal, what, value, floor, ratio, wanted, reached.to_string()]
    }
}

/// In Markdown, so that it can be shown as it is.
pub fn print(rows: &[Row]) {
    let head = [
        "goal",
        "what",
        "median (min…max)",
        "floor",
        "ratio",
        "wanted",
        "reached",
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

/// In brackets; empty where there is one figure only.
fn range(figures: &[f64]) -> String {
    let min = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let max = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if min == max {
        return String::new();
    }
    format!(" ({}…{})", short(min), short(max))
}

/// Three digits that matter, and no more.
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

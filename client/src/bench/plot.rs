//! A picture of the times: percentiles across, on a scale that gives each further nine the same room, and times upward.

use std::fmt::Write as _;

use super::{clock::ms, report::Line};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 500.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 60.0;
const TOP: f64 = 50.0;
const RIGHT: f64 = 20.0;

/// Nines that are shown: up to 99.99 %.
const NINES: f64 = 4.0;

/// Points of a line.
const POINTS: usize = 200;

/// One for each line; they differ in lightness, too.
const COLOURS: [&str; 6] = ["#0b5cad", "#d9730d", "#2d8a4e", "#8e44ad", "#b00020", "#555555"];

/// The picture, in SVG.
pub fn svg(title: &str, lines: &[Line]) -> String {
    let longest = lines.iter().map(|line| ms(line.times.value_at_quantile(1.0))).fold(0.1, f64::max);
    let shortest = lines.iter().map(|line| ms(line.times.min())).fold(longest, f64::min).max(0.001);
    let (low, high) = (shortest.log10().floor(), longest.log10().ceil().max(shortest.log10().floor() + 1.0));
    let x = |nines: f64| LEFT + (WIDTH - LEFT - RIGHT) * nines / NINES;
    let y = |ms: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (ms.max(1e-6).log10() - low) / (high - low);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"12\">{}</text>\n",
        escaped(title)
    );
    let mut rule = |from: (f64, f64), to: (f64, f64), label: &str, anchor: &str, at: (f64, f64)| {
        let _ = writeln!(
            out,
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#dddddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>",
            from.0, from.1, to.0, to.1, at.0, at.1
        );
    };
    for decade in low as i32..=high as i32 {
        let ms = 10_f64.powi(decade);
        rule((LEFT, y(ms)), (WIDTH - RIGHT, y(ms)), &format!("{ms} ms"), "end", (LEFT - 8.0, y(ms) + 4.0));
    }
    for (nines, label) in [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")] {
        let at = (x(nines), HEIGHT - BOTTOM + 20.0);
        rule((x(nines), TOP), (x(nines), HEIGHT - BOTTOM), label, "middle", at);
    }
    for (place, line) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let points = (0..=POINTS).map(|point| {
            let nines = NINES * point as f64 / POINTS as f64;
            let ms = ms(line.times.value_at_quantile(1.0 - 10_f64.powf(-nines)));
            format!("{:.1},{:.1}", x(nines), y(ms.max(shortest)))
        });
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        let (left, top) = (LEFT + 20.0, TOP + 20.0 * (place as f64 + 1.0));
        let name = escaped(&line.name);
        let _ = writeln!(out, "<text x=\"{left}\" y=\"{top}\" fill=\"{colour}\" font-weight=\"bold\">{name}</text>");
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::bench::{machine::Share, report::times_of};

    fn line(name: &str, times: impl IntoIterator<Item = u64>) -> Line {
        let (share, times) = (Share::default(), times_of(times));
        Line { name: name.into(), count: 0, per_second: 0.0, times, missed: 0, repeated: 0, share, more: Map::new() }
    }

    #[test]
    fn each_line_is_drawn_within_the_picture_and_upward() {
        let lines = [line("watch", (1..1_000).map(|us| us * 1_000)), line("a<b", [5_000_000]), line("none", [])];
        let svg = svg("A & B", &lines);
        assert!(svg.contains("A &amp; B") && svg.contains("a&lt;b"), "{svg}");
        let drawn: Vec<&str> = svg.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(drawn.len(), 3);
        for points in drawn {
            let mut before = HEIGHT;
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((LEFT..=WIDTH).contains(&x) && (TOP - 1.0..=HEIGHT - BOTTOM + 0.1).contains(&y), "{point}");
                assert!(y <= before, "a higher percentile is never shorter: {points}");
                before = y;
            }
        }
    }
}

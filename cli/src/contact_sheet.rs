//! A contact sheet: one HTML file with faces by group. Nothing is fetched, pictures are inside, so it can be mailed.
//!
//! Knows tiles and text only; where pictures come from is [`pictures`](crate::pictures)' business.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A page of faces.
pub(crate) struct Sheet {
    /// In the title bar and on top.
    pub(crate) title: String,
    /// Sentences below the title.
    pub(crate) notes: Vec<String>,
    /// From top to bottom.
    pub(crate) sections: Vec<Section>,
}

/// Faces that belong together.
pub(crate) struct Section {
    pub(crate) heading: String,
    pub(crate) tiles: Vec<Tile>,
    /// Faces of this section that are not shown.
    pub(crate) left_out: usize,
}

/// One face.
pub(crate) struct Tile {
    /// A square JPEG; `None` when the photo is no longer where it was.
    pub(crate) jpeg: Option<Vec<u8>>,
    /// Below the picture.
    pub(crate) caption: String,
    /// What the picture shows, for those who can't see it.
    pub(crate) alt: String,
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #63676d; --page: #fafaf8; --line: #dededa; --tile: #ececea; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e9e9e6; --soft: #a0a4aa; --page: #16181b; --line: #33363b; --tile: #24272b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .5rem; font-size: 1.75rem; line-height: 1.2; text-wrap: balance; }
h2 { margin: 0 0 .75rem; font-size: 1.05rem; }
p { margin: 0 0 .25rem; max-width: 46rem; color: var(--soft); }
section { margin-top: 1.75rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
ul { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0; padding: 0; list-style: none; }
figure { margin: 0; width: 7rem; }
img, .gone { display: block; width: 7rem; height: 7rem; border-radius: .5rem; background: var(--tile); }
.gone { padding: .5rem; font-size: .75rem; color: var(--soft); }
figcaption { margin-top: .25rem; font-size: .75rem; color: var(--soft); overflow-wrap: anywhere; }
.more { align-self: center; color: var(--soft); font-size: .875rem; }
@media print { section { break-inside: avoid; } }
";

impl Sheet {
    /// Writes the page.
    ///
    /// # Errors
    /// Only those of `out`.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let title = escape(&self.title);
        write!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
        writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        write!(out, "<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n")?;
        self.notes.iter().try_for_each(|note| writeln!(out, "<p>{}</p>", escape(note)))?;
        self.sections.iter().try_for_each(|section| section.write(out))?;
        write!(out, "</main>\n</body>\n</html>\n")?;
        out.flush()
    }
}

impl Section {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "<section>\n<h2>{}</h2>\n<ul>\n", escape(&self.heading))?;
        self.tiles.iter().try_for_each(|tile| tile.write(out))?;
        if self.left_out > 0 {
            writeln!(out, "<li class=\"more\">and {} more</li>", self.left_out)?;
        }
        write!(out, "</ul>\n</section>\n")
    }
}

impl Tile {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let alt = escape(&self.alt);
        write!(out, "<li><figure>")?;
        match &self.jpeg {
            Some(jpeg) => {
                let data = STANDARD.encode(jpeg);
                write!(out, "<img alt=\"{alt}\" width=\"112\" height=\"112\" src=\"data:image/jpeg;base64,{data}\">")?;
            }
            None => write!(out, "<div class=\"gone\">{alt}: the photo has moved or changed</div>")?,
        }
        writeln!(out, "<figcaption>{}</figcaption></figure></li>", escape(&self.caption))
    }
}

/// Text inside an element or a quoted attribute. Names and paths come from files: they may hold anything.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    #[test]
    fn a_page_stands_alone_and_no_name_becomes_markup() {
        let tile = |jpeg| Tile { jpeg, caption: "<b>&co".into(), alt: "face 1, \"Ana\"".into() };
        let tiles = vec![tile(Some(vec![0xff, 0xd8])), tile(None)];
        let section = Section { heading: "<script>".into(), tiles, left_out: 3 };
        let sheet = Sheet { title: "T".into(), notes: vec!["a < b".into()], sections: vec![section] };
        let mut page = Vec::new();
        sheet.write(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("src=\"data:image/jpeg;base64,/9g=\"") && page.contains("and 3 more"));
        assert!(page.contains("alt=\"face 1, &quot;Ana&quot;\"") && page.contains("&lt;b&gt;&amp;co"));
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("http"));
    }
}

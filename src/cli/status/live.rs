//! `cowherd status --watch`: the same as a live view of the terminal.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::screen;
use crate::serve::control::answer::Status;
use crate::serve::{Failure, note_requests_to_end};
use crate::status::report::State;

/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(1);

/// What is shown, and from where on.
struct View {
    shown: Result<Status, Failure>,
    is_one: bool,
    from: usize,
}

/// What came of waiting.
enum Turn {
    /// Somebody has seen enough.
    Enough,
    /// The screen is to be drawn again.
    Drawn,
    /// The server is to be asked again.
    Asked,
}

/// Shows what `ask` gives, until somebody has seen enough.
pub(super) fn run(ask: impl Fn() -> Result<Status, Failure>, is_one: bool) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage(
            "--watch needs a terminal: without one, use --json or no option",
        ));
    }
    // What can't be asked at all is said the usual way.
    let mut view = View {
        shown: Ok(ask()?),
        is_one,
        from: 0,
    };
    let failed = |error: io::Error| Failure::failed(format!("terminal: {error}"));
    // Whatever ends it, the terminal is as it was.
    let is_to_end = note_requests_to_end();
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let seen = view.run(&mut terminal, ask, is_to_end);
    ratatui::restore();
    seen.map_err(failed)
}

impl View {
    fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        ask: impl Fn() -> Result<Status, Failure>,
        is_to_end: impl Fn() -> bool,
    ) -> io::Result<()> {
        let mut next = Instant::now() + EVERY;
        loop {
            terminal.draw(|frame| self.draw(frame))?;
            match self.wait(next)? {
                _ if is_to_end() => return Ok(()),
                Turn::Enough => return Ok(()),
                Turn::Drawn => {}
                Turn::Asked => {
                    self.shown = ask();
                    next = Instant::now() + EVERY;
                }
            }
        }
    }

    /// Waits for keys until then.
    fn wait(&mut self, until: Instant) -> io::Result<Turn> {
        let left = until.saturating_duration_since(Instant::now());
        if !event::poll(left)? {
            return Ok(Turn::Asked);
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press && self.press(key) => {
                Ok(Turn::Enough)
            }
            _ => Ok(Turn::Drawn),
        }
    }

    fn press(&mut self, key: KeyEvent) -> bool {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Down | KeyCode::Char('j') => self.from = self.from.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.from = self.from.saturating_sub(1),
            KeyCode::PageDown => self.from = self.from.saturating_add(20),
            KeyCode::PageUp => self.from = self.from.saturating_sub(20),
            KeyCode::Home => self.from = 0,
            _ => {}
        }
        false
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let status = match &self.shown {
            Ok(status) => status,
            Err(failure) => {
                let said = Paragraph::new(failure.to_string()).wrap(Wrap::default());
                frame.render_widget(said, frame.area());
                return;
            }
        };
        let most = status.clients.len().saturating_sub(1);
        match status.clients.first() {
            Some(client) if self.is_one => {
                let lines = screen::one(client, status.now);
                let from = self.from.min(lines.len().saturating_sub(1));
                let lines: Vec<_> = lines.into_iter().skip(from).map(Line::from).collect();
                frame.render_widget(Paragraph::new(lines), frame.area());
            }
            _ => {
                self.from = self.from.min(most);
                draw_all(frame, status, self.from);
            }
        }
    }
}

fn draw_all(frame: &mut Frame<'_>, status: &Status, from: usize) {
    let wrong: Vec<_> = screen::problems(status).map(Line::from).collect();
    let below = u16::try_from(wrong.len() * 2).unwrap_or(u16::MAX);
    let below = below.min(frame.area().height / 3);
    let parts = [
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(below),
        Constraint::Length(1),
    ];
    let [head, middle, foot, keys] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Line::from(screen::summary(status)), head);
    let rows = status.clients.iter().skip(from).map(|client| {
        let cells = screen::row(client, status.now).map(Cell::from);
        Row::new(cells).style(style(client.state))
    });
    let widths = [22, 8, 18, 8, 24, 10, 10, 10].map(Constraint::Min);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let table = Table::new(rows, widths).header(Row::new(screen::HEAD).style(bold));
    frame.render_widget(table, middle);
    frame.render_widget(Paragraph::new(wrong).wrap(Wrap::default()), foot);
    frame.render_widget(Line::from("q ends, arrows scroll"), keys);
}

/// The word stands there too: nothing is said by colour alone.
fn style(state: State) -> Style {
    match state {
        State::Failed | State::Stuck => Style::new().fg(Color::Red),
        State::Slow => Style::new().fg(Color::Yellow),
        State::Booting => Style::new().fg(Color::Cyan),
        State::Up => Style::new(),
        State::Down | State::Idle => Style::new().add_modifier(Modifier::DIM),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::status::{At, Event, Sign, Timelines};

    fn view(machines: usize) -> View {
        let mut all = Timelines::default();
        for number in 0..machines {
            let sign = Sign {
                name: Some(format!("pc-{number}")),
                ..Sign::default()
            };
            all.handle(At(0), &sign, &Event::Refused("no such image".to_owned()));
        }
        View {
            shown: Ok(Status {
                running: true,
                now: At(0),
                clients: all.clients(At(0)),
                exports: Vec::new(),
            }),
            is_one: false,
            from: 0,
        }
    }

    fn drawn(view: &mut View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 20)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_has_the_machines_and_what_is_wrong() {
        let drawn = drawn(&mut view(2));
        for text in [
            "2 machines: 2 failed",
            "MACHINE",
            "pc-0",
            "no such image",
            "q ends",
        ] {
            assert!(drawn.contains(text), "{text}:\n{drawn}");
        }
    }

    #[test]
    fn the_arrows_scroll_and_stop_at_the_ends() {
        let mut view = view(100);
        assert!(drawn(&mut view).contains("pc-0 "));
        (0..500).for_each(|_| {
            view.press(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
        });
        let last = drawn(&mut view);
        assert!(last.contains("pc-99") && !last.contains("pc-0 "), "{last}");
        assert!(view.press(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)));
    }
}

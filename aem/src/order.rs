//! Whether tasks wait for tasks that exist, and none for itself, however far around.

use crate::check::{few, shown};
use std::collections::HashMap;
use xos_api::aem::TaskSpec;
use xos_base::Error;

/// Most tasks that are told of a circle.
const CIRCLE_SHOWN: usize = 10;

/// A name in the [`TaskSpec::after`] of a task that cannot be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The task's place in the job.
    pub task: usize,
    /// The name's place in the task's `after`.
    pub after: usize,
    /// What is wrong with it: [`xos_base::Kind::Invalid`].
    pub error: Error,
}

/// Checks what the tasks of a job wait for.
///
/// # Errors
/// The first name that is none of a task, or one that closes a circle.
pub fn check(tasks: &[TaskSpec]) -> Result<(), Wrong> {
    let index: HashMap<&str, usize> =
        tasks.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let mut before: Vec<Vec<usize>> = Vec::with_capacity(tasks.len());
    for (task, t) in tasks.iter().enumerate() {
        let known = |(after, name): (usize, &String)| {
            index.get(name.as_str()).copied().ok_or_else(|| unknown(tasks, task, after))
        };
        before.push(t.after.iter().enumerate().map(known).collect::<Result<_, _>>()?);
    }
    let mut behind: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (task, waits) in before.iter().enumerate() {
        waits.iter().for_each(|b| behind[*b].push(task));
    }
    // How many each task still waits for, as one after another is done.
    let mut left: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut free: Vec<usize> = (0..tasks.len()).filter(|t| left[*t] == 0).collect();
    while let Some(task) = free.pop() {
        for b in &behind[task] {
            left[*b] -= 1;
            if left[*b] == 0 {
                free.push(*b);
            }
        }
    }
    match left.iter().position(|n| *n > 0) {
        None => Ok(()),
        Some(first) => Err(circle(tasks, &before, &left, first)),
    }
}

fn unknown(tasks: &[TaskSpec], task: usize, after: usize) -> Wrong {
    let (t, name) = (&tasks[task], &tasks[task].after[after]);
    let text =
        format!("task {} waits for {:?}, which is no task of the job", shown(&t.name), shown(name));
    let names = few(tasks.iter().map(|t| t.name.as_str()));
    let error = Error::invalid(text).hint(format!("its tasks are: {names}"));
    Wrong { task, after, error }
}

/// Goes from a task that is never free to the next one that it waits for, until one comes again.
fn circle(tasks: &[TaskSpec], before: &[Vec<usize>], left: &[usize], first: usize) -> Wrong {
    let next = |task: usize| before[task].iter().position(|b| left[*b] > 0).unwrap_or(0);
    let mut way = Vec::new();
    let mut seen = HashMap::new();
    let mut task = first;
    while !seen.contains_key(&task) {
        seen.insert(task, way.len());
        way.push(task);
        task = before[task][next(task)];
    }
    let way = &way[seen[&task]..];
    let mut names: Vec<String> =
        way.iter().take(CIRCLE_SHOWN).map(|t| shown(&tasks[*t].name)).collect();
    if way.len() > CIRCLE_SHOWN {
        names.push(format!("{} more", way.len() - CIRCLE_SHOWN));
    }
    names.push(shown(&tasks[task].name));
    let text = format!("task {} waits for itself: {}", names[0], names.join(" after "));
    let error = Error::invalid(text).hint("leave one of these out of `after`");
    Wrong { task, after: next(task), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn wrong(tasks: &[(&str, &str, &[&str])]) -> (usize, usize, String) {
        let w = check(&testing::spec(tasks).tasks).unwrap_err();
        (w.task, w.after, w.error.to_string())
    }

    /// If it failed, who mistypes one name among many would have to guess which, and what the
    /// others are.
    #[test]
    fn an_unknown_name_is_told_with_those_that_exist() {
        let told = wrong(&[("a", "0", &[]), ("b", "0", &["a", "c"])]);
        let text = "task b waits for \"c\", which is no task of the job; its tasks are: a, b";
        assert_eq!(told, (1, 1, text.to_owned()));
        let names: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
        let mut many: Vec<(&str, &str, &[&str])> =
            names.iter().map(|n| (n.as_str(), "0", &[] as &[&str])).collect();
        many[0].2 = &["x"];
        let (.., text) = wrong(&many);
        assert!(text.ends_with("t8, t9 and 30 more"), "{text}");
    }

    /// If it failed, a circle would be found by drawing all tasks on paper, or the job would wait
    /// for ever.
    #[test]
    fn a_circle_is_told_with_its_tasks() {
        let told = wrong(&[
            ("a", "0", &[]),
            ("b", "0", &["a", "d"]),
            ("c", "0", &["b"]),
            ("d", "0", &["c"]),
        ]);
        let text = "task b waits for itself: b after d after c after b; leave one of these out of \
                    `after`";
        assert_eq!(told, (1, 1, text.to_owned()));
        // What only waits for a circle is not in it.
        let (task, _, text) = wrong(&[("z", "0", &["a"]), ("a", "0", &["a"])]);
        assert_eq!(task, 1);
        assert!(text.starts_with("task a waits for itself: a after a;"), "{text}");
        let fine =
            testing::spec(&[("a", "0", &[]), ("b", "0", &["a"]), ("c", "0", &["a", "b", "a"])]);
        assert_eq!(check(&fine.tasks), Ok(()));
    }
}

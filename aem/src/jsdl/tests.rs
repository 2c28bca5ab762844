use super::*;
use proptest::prelude::*;
use xos_api::aem::{ProcessLimits, Resources, Stage, StageMode, TaskSpec};
use xos_base::VoId;

fn vo() -> VoId {
    "demo.rennes".parse().unwrap()
}

fn doc(inside: &str) -> String {
    format!(
        "<JobDefinition xmlns=\"{JSDL}\" xmlns:p=\"{POSIX}\" xmlns:x=\"{XOS}\">\n<JobDescription>\n{inside}\n</JobDescription>\n</JobDefinition>\n"
    )
}

const APP: &str = "<Application><p:POSIXApplication><p:Executable>/bin/true</p:Executable></p:POSIXApplication></Application>";

/// Every document in `tests/golden/jsdl` with what becomes of it: a job, or a sentence.
#[test]
fn documents_are_read_as_the_golden_file_says() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/jsdl");
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    let mut text = String::new();
    for name in names {
        let document = std::fs::read_to_string(dir.join(&name)).unwrap();
        text += &format!("== {}\n", name.to_string_lossy());
        text += &match parse(&document, Some(&vo())) {
            Ok(job) => {
                crate::check::job(&job).unwrap();
                serde_json::to_string_pretty(&job).unwrap()
            }
            Err(e) => e.to_string(),
        };
        text += "\n";
    }
    crate::golden::check("jsdl.txt", &text);
}

/// Each unsupported or malformed part is refused with its place and a reason.
#[test]
fn refusals_are_those_of_the_golden_file() {
    let app = |inside: &str| {
        doc(&format!(
            "<Application><p:POSIXApplication><p:Executable>a</p:Executable>{inside}</p:POSIXApplication></Application>"
        ))
    };
    let res = |inside: &str| doc(&format!("{APP}\n<Resources>{inside}</Resources>"));
    let stage = |inside: &str| doc(&format!("{APP}\n<DataStaging>{inside}</DataStaging>"));
    let cases = vec![
        ("empty", String::new()),
        ("no xml", "hello".to_owned()),
        ("truncated", doc(APP)[..200].to_owned()),
        ("wrong namespace", "<JobDefinition xmlns=\"urn:other\"/>".to_owned()),
        ("no namespace", "<JobDefinition/>".to_owned()),
        ("undeclared prefix", "<j:JobDefinition/>".to_owned()),
        ("two roots", format!("{0}{0}", doc(APP))),
        ("mismatched tags", "<a><b></a></b>".to_owned()),
        ("doctype", format!("<!DOCTYPE x SYSTEM \"file:///etc/passwd\">{}", doc(APP))),
        (
            "billion laughs",
            format!(
                "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]>{}",
                doc("<x:VO>&b;</x:VO>")
            ),
        ),
        ("undefined entity", doc("<x:VO>&b;</x:VO>")),
        ("no application", doc("")),
        ("no executable", doc("<Application><p:POSIXApplication/></Application>")),
        ("unknown jsdl element", doc(&format!("{APP}<Colour/>"))),
        ("unknown posix element", app("<p:Colour/>")),
        ("foreign element", doc(&format!("{APP}<c:Colour xmlns:c=\"urn:c\"/>"))),
        ("user name", app("<p:UserName>root</p:UserName>")),
        ("group name", app("<p:GroupName>root</p:GroupName>")),
        ("pipe size", app("<p:PipeSizeLimit>1</p:PipeSizeLimit>")),
        ("file system", app("<p:Argument filesystemName=\"HOME\">x</p:Argument>")),
        ("negative limit", app("<p:WallTimeLimit>-1</p:WallTimeLimit>")),
        ("variable without name", app("<p:Environment>x</p:Environment>")),
        (
            "variable twice",
            app(
                "<p:Environment name=\"A\">x</p:Environment><p:Environment name=\"A\">y</p:Environment>",
            ),
        ),
        (
            "application name",
            doc("<Application><ApplicationName>a</ApplicationName></Application>"),
        ),
        (
            "windows",
            res(
                "<OperatingSystem><OperatingSystemType><OperatingSystemName>WINNT</OperatingSystemName></OperatingSystemType></OperatingSystem>",
            ),
        ),
        ("host name", res("<CandidateHosts><HostName>n1.rennes</HostName></CandidateHosts>")),
        ("two machines", res("<TotalResourceCount><Exact>2</Exact></TotalResourceCount>")),
        (
            "total differs",
            res(
                "<IndividualCPUCount><Exact>1</Exact></IndividualCPUCount><TotalCPUCount><Exact>8</Exact></TotalCPUCount>",
            ),
        ),
        ("no number", res("<IndividualCPUCount><Exact>many</Exact></IndividualCPUCount>")),
        ("not a number", res("<IndividualCPUCount><Exact>NaN</Exact></IndividualCPUCount>")),
        ("empty range", res("<IndividualCPUCount/>")),
        (
            "upside-down range",
            res(
                "<IndividualCPUCount><Range><LowerBound>3</LowerBound><UpperBound>2</UpperBound></Range></IndividualCPUCount>",
            ),
        ),
        ("exclusive", res("<ExclusiveExecution>true</ExclusiveExecution>")),
        (
            "staging without end",
            stage("<FileName>a</FileName><CreationFlag>overwrite</CreationFlag>"),
        ),
        (
            "staging by http",
            stage(
                "<FileName>a</FileName><CreationFlag>overwrite</CreationFlag><Source><URI>http://x/y</URI></Source>",
            ),
        ),
        (
            "staging of another VO",
            stage(
                "<FileName>a</FileName><CreationFlag>overwrite</CreationFlag><Source><URI>xtreemfs://other.pisa/y</URI></Source>",
            ),
        ),
        (
            "staging flag",
            stage(
                "<FileName>a</FileName><CreationFlag>maybe</CreationFlag><Source><URI>y</URI></Source>",
            ),
        ),
        ("bad array", doc(&format!("{APP}<x:Array>5-1</x:Array>"))),
        ("bad VO", doc(&format!("{APP}<x:VO>demo</x:VO>"))),
        (
            "name twice",
            doc(&format!(
                "<JobIdentification><JobName>a</JobName><JobName>b</JobName></JobIdentification>{APP}"
            )),
        ),
        ("text between", doc(&format!("{APP} hello"))),
        ("attribute", doc(&format!("<JobIdentification colour=\"red\"/>{APP}"))),
    ];
    let mut text = String::new();
    for (name, document) in cases {
        let e = parse(&document, Some(&vo())).expect_err(name);
        text += &format!("{name}: {e}\n");
    }
    crate::golden::check("jsdl-refusals.txt", &text);
}

#[test]
fn hostile_sizes_are_refused_early() {
    let too_large = |d: &str| parse(d, Some(&vo())).unwrap_err().problem;
    let ten = format!("<a>{}</a>", "x".repeat(10 * 1024 * 1024));
    assert_eq!(too_large(&ten), Problem::TooLarge);
    let deep = "<a>".repeat(10_000);
    assert_eq!(too_large(&deep), Problem::TooLarge);
    let wide = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS_MAX + 1));
    assert_eq!(too_large(&wide), Problem::TooLarge);
    let attributes: String = (0..40).map(|i| format!(" a{i}=\"1\"")).collect();
    assert_eq!(too_large(&format!("<a{attributes}/>")), Problem::TooLarge);
}

#[test]
fn without_a_vo_the_document_must_name_it() {
    let e = parse(&doc(APP), None).unwrap_err();
    assert_eq!(e.problem, Problem::Missing("VO"));
    let job = parse(&doc(&format!("{APP}<x:VO>other.pisa</x:VO>")), Some(&vo())).unwrap();
    assert_eq!(job.vo.as_str(), "other.pisa");
}

prop_compose! {
    fn any_stage()(name in "[a-z][a-z0-9/]{0,8}", volume in "[a-z]{1,8}(/[a-z<&]{1,4})?", mode in 0..3, delete: bool) -> Stage {
        let mode = [StageMode::Overwrite, StageMode::Append, StageMode::DontOverwrite][mode as usize];
        Stage { name, volume, mode, delete }
    }
}

prop_compose! {
    fn any_limits()(l in proptest::collection::vec(proptest::option::of(any::<u64>()), 9)) -> ProcessLimits {
        ProcessLimits {
            file_size: l[0], core_size: l[1], data: l[2], locked_memory: l[3], open_files: l[4],
            stack: l[5], cpu_time_s: l[6], processes: l[7], virtual_memory: l[8],
        }
    }
}

prop_compose! {
    fn any_task(number: usize)(
        program in "/[!-~]{1,12}",
        args in proptest::collection::vec("[ -~\n\r\t\u{e9}\u{1F600}\u{2028}]{0,12}", 0..4),
        env in proptest::collection::btree_map("[A-Z_]{1,6}", "[ -~\n\u{e9}]{0,8}", 0..3),
        paths in proptest::collection::vec(proptest::option::of("[!-~]([ -~]{0,10}[!-~])?"), 4),
        array in proptest::sample::select(vec!["0", "0-15", "1,3,7", "0-99%4", "0-20:5"]),
        retry in 0u16..4,
        checkpointable: bool,
        cpu in 10u32..64_000,
        memory in (1u64 << 22)..(1u64 << 50),
        arch in proptest::option::of("x86_64|arm"),
        wall in proptest::option::of(any::<u64>()),
        limits in any_limits(),
        stage_in in proptest::collection::vec(any_stage(), 0..3),
        stage_out in proptest::collection::vec(any_stage(), 0..3),
    ) -> TaskSpec {
        let mut argv = vec![program];
        argv.extend(args);
        TaskSpec {
            name: format!("t{number}"), argv, env,
            cwd: paths[0].clone(), stdin: paths[1].clone(), stdout: paths[2].clone(), stderr: paths[3].clone(),
            array: array.parse().unwrap(),
            after: (0..number).map(|n| format!("t{n}")).collect(),
            resources: Resources { cpu_milli: cpu, memory_bytes: memory, arch, wall_time_s: wall },
            limits, retry, checkpointable, stage_in, stage_out,
        }
    }
}

prop_compose! {
    fn any_job()(
        name in "[a-z<>&\"'\u{e9}]([ -~]{0,20}[!-~])?",
        a in any_task(0), b in any_task(1), two: bool,
        after in proptest::collection::vec(1u64..100, 0..3),
        sites in proptest::sample::subsequence(vec!["rennes", "pisa"], 0..=2),
    ) -> JobSpec {
        JobSpec {
            vo: vo(), name,
            tasks: if two { vec![a, b] } else { vec![a] },
            after_jobs: after.into_iter().map(|n| format!("{n}.rennes").parse().unwrap()).collect(),
            sites: sites.into_iter().map(|s| s.parse().unwrap()).collect(),
        }
    }
}

proptest! {
    /// What is written is read back as the same job.
    #[test]
    fn a_job_survives_jsdl(job in any_job()) {
        let document = write(&job).unwrap();
        let back = parse(&document, None).map_err(|e| TestCaseError::fail(format!("{e}\n{document}")))?;
        prop_assert_eq!(back, job, "{}", document);
    }

    /// A panic here would end a tool, or a core, on a document from outside.
    #[test]
    fn garbage_is_refused(text in "[<>/a-z\"'= &;!\\[\\]-]{0,200}") {
        prop_assert!(parse(&text, Some(&vo())).is_err());
    }

    /// The same for a good document with a part cut out.
    #[test]
    fn mutilated_documents_never_panic(from in 0usize..1500, len in 1usize..40) {
        let spec = crate::testing::spec(&[("a", "0-3", &[]), ("b", "0", &["a"])]);
        let good = write(&spec).unwrap();
        let mut text = good.into_bytes();
        let from = from % text.len();
        let to = (from + len).min(text.len());
        text.drain(from..to);
        if let Ok(text) = String::from_utf8(text) {
            // Whatever it says, it says it without a panic.
            let _outcome = parse(&text, Some(&vo()));
        }
    }
}

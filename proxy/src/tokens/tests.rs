use base64::Engine as _;
use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

const README: &str = include_str!("../../../README.md");
const LOCK: &str = include_str!("../../../Cargo.lock");
const SCRIPT: &str = include_str!("../../../tidepool");
const SOURCE: &str = include_str!("../tokens.rs");

const GERMAN: &str = "Der Hafenmeister zählt die Boote, sobald das Wasser fällt, und schreibt die Zahl auf eine \
    Tafel neben der Schleuse. Wer später kommt, liest dort, wie viele noch draußen sind, und wartet mit dem Schließen \
    der Tore, bis auch das letzte Fischerboot zurückgekehrt ist. Nachts brennt dafür eine Laterne.";
const FRENCH: &str = "Le maître du port compte les bateaux dès que la mer descend, puis il écrit leur nombre sur un \
    tableau près de l'écluse. Celui qui arrive plus tard y lit combien sont encore dehors et attend, avant de fermer \
    les portes, que le dernier pêcheur soit rentré. La nuit, une lanterne éclaire ce tableau.";
const RUSSIAN: &str = "Начальник порта считает лодки, как только вода уходит, и записывает число на доске у шлюза. \
    Кто приходит позже, читает там, сколько лодок ещё в море, и не закрывает ворота, пока не вернётся последний рыбак. \
    Ночью над доской горит фонарь.";
const CHINESE: &str = "港务长在退潮时清点船只，并把数目写在水闸旁边的木板上。后来的人看到还有多少船在外面，就等最后一位渔民\
    回来再关闸门。夜里木板上方点着一盏灯。";
const JAPANESE: &str = "港長は潮が引くとすぐに船を数え、その数を水門のそばの板に書きます。後から来た人はまだ何隻が外にいるかを読み、\
    最後の漁師が戻るまで門を閉めずに待ちます。夜にはその板の上に灯りがともります。";

/// As it is inside a JSON string.
fn escaped(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap();
    json[1..json.len() - 1].to_owned()
}

/// What the tokenizer of OpenAI's models makes of it.
fn counted(text: &str) -> u64 {
    u64::try_from(bpe_openai::o200k_base().count(text)).unwrap()
}

fn off_by_percent(estimated: u64, counted: u64) -> u64 {
    estimated.abs_diff(counted) * 100 / counted
}

#[test]
fn an_estimate_is_near_what_a_tokenizer_counts() {
    let rows = (0..400).map(|row| {
        let (percent, rest) = (row * 7 % 101, row * 13 % 100);
        format!("| {row} | {percent}.{rest:02} % | ok |\n")
    });
    let table = rows.collect::<Vec<_>>().concat();
    let encoded = base64::engine::general_purpose::STANDARD.encode(README);
    for (what, text) in [
        ("prose and tables", README),
        ("a list of packages", LOCK),
        ("a shell script", SCRIPT),
        ("Rust", SOURCE),
        ("numbers", &table),
        ("text in base64", &encoded),
        ("German", GERMAN),
        ("French", FRENCH),
        ("Russian", RUSSIAN),
        ("Chinese", CHINESE),
        ("Japanese", JAPANESE),
    ] {
        let (estimated, counted) = (TextTokens::of(escaped(text).as_bytes()), counted(text));
        let off = off_by_percent(estimated, counted);
        eprintln!("{what}: {estimated} for {counted}");
        assert!(off <= 15, "{what}: {estimated} for {counted}");
    }
}

#[test]
fn a_character_costs_the_same_however_it_is_escaped() {
    for (plain, other) in [
        ("a\u{6f6e}b", r"a\u6f6eb"),
        ("f\u{fc}r", r"f\u00FCr"),
        ("a/b", r"a\/b"),
        ("aAb", r"a\u0041b"),
    ] {
        let of = |json: &str| TextTokens::of(json.as_bytes());
        assert_eq!(of(plain), of(other), "{other}");
    }
    assert_eq!(TextTokens::of(br"\u"), 0, "cut");
    assert!(TextTokens::of(br"\n\n\n word") < TextTokens::of(br"\\n\\n\\n word"));
}

/// Not what people write, but what somebody may who looks for what costs little.
#[test]
fn no_kind_of_text_costs_a_fraction_of_what_it_comes_to() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut drawn = |from: &str, count: usize| -> String {
        let chars: Vec<_> = from.chars().collect();
        (0..count)
            .map(|_| chars[rng.random_range(0..chars.len())])
            .collect()
    };
    let letters = "abcdefghijklmnopqrstuvwxyz";
    for from in [
        "!#$%&'()*+,-./:;<=>?@[]^_`{|}~",
        ".-/|",
        letters,
        &letters.to_uppercase(),
        &(letters.to_owned() + &letters.to_uppercase() + "0123456789"),
        "0123456789",
        " \t",
        "\n\r",
        "\u{6f6e}\u{6c50}\u{6e2f}\u{52a1}\u{957f}",
        "\u{e9}\u{6f6e}\u{6c50}\u{1f980}",
        "\u{780}\u{781}\u{782}\u{783}\u{784}",
        "\u{1f980}\u{1f418}\u{1f40b}",
    ] {
        for count in [100, 4000] {
            let text = drawn(from, count);
            let (estimated, counted) = (TextTokens::of(escaped(&text).as_bytes()), counted(&text));
            assert!(
                estimated * 3 >= counted,
                "{estimated} for {counted}: {from:?}"
            );
        }
    }
    for same in [" ", "\n", "-", "=", "a"] {
        let text = same.repeat(10_000);
        let (estimated, counted) = (TextTokens::of(escaped(&text).as_bytes()), counted(&text));
        assert!(
            estimated * 3 >= counted,
            "{estimated} for {counted}: {same:?}"
        );
        assert!(
            estimated <= 4 * counted.max(500),
            "{estimated} for {counted}: {same:?}"
        );
    }
}

#[test]
fn what_is_said_is_never_nothing_and_silence_is() {
    assert_eq!(TextTokens::default().count(), 0);
    for text in [
        "a",
        "Z",
        "0",
        " ",
        ".",
        r"\n",
        "\u{e9}",
        "\u{6f6e}",
        "\u{1f980}",
    ] {
        assert_eq!(
            TextTokens::of(text.as_bytes()).clamp(1, 3),
            TextTokens::of(text.as_bytes())
        );
    }
}

#[test]
fn strings_are_texts_of_their_own() {
    let mut apart = TextTokens::default();
    for _ in 0..100 {
        apart.add(b"read");
        apart.end();
    }
    let one = TextTokens::of("read".repeat(100).as_bytes());
    assert!((90..110).contains(&apart.count()), "{}", apart.count());
    assert_ne!(apart.count(), one);
}

proptest! {
    #[test]
    fn where_it_is_cut_makes_no_difference(
        json in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            r#"([a-z ]|[A-Z0-9]|\\u[0-9a-f]{4}|\\n|\\"|[.,|]|é|潮|🦀)*"#.prop_map(String::into_bytes),
        ],
        piece in 1usize..9,
    ) {
        let mut cut = TextTokens::default();
        json.chunks(piece).for_each(|part| cut.add(part));
        let mut whole = TextTokens::default();
        whole.add(&json);
        prop_assert_eq!(cut, whole);
    }
}

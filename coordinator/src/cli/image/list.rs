//! `tidepool image list`.

use super::super::{
    CommandFailed,
    client::Client,
    output::{Output, table},
};
use crate::api::images::{ImageView, ImagesView};

pub(super) async fn run(client: &Client, output: &mut Output) -> Result<(), CommandFailed> {
    let images: ImagesView = client.get("/v1/images").await?;
    output.show(&images, lines)
}

fn lines(images: &ImagesView) -> Vec<String> {
    let header = [
        "IMAGE", "OPENCLAW", "AGENT", "AGE", "SIZE", "VERIFIED", "PROMOTED", "SERVERS",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(images.data.iter().map(row));
    let mut lines = table(&rows);
    if let Some(trial) = &images.trial {
        lines.push(format!("{} is being tried: {}", trial.image, trial.stage));
    }
    lines
}

fn row(image: &ImageView) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let size = image.size_bytes.map(|bytes| format!("{} MiB", bytes >> 20));
    vec![
        image.id.clone(),
        or_dash(&image.openclaw_version),
        or_dash(&image.agent_version),
        age(image.age_s),
        or_dash(&size),
        verified(image),
        if image.promoted { "yes" } else { "-" }.to_owned(),
        image.servers.to_string(),
    ]
}

/// The word, and of what was measured what people ask first.
fn verified(image: &ImageView) -> String {
    let Some(last) = &image.verification else {
        return "-".to_owned();
    };
    let warm = last
        .figures
        .iter()
        .find(|figure| figure.name == "boot_to_warm")
        .map(|figure| format!(", warm in {} s", figure.measured.div_ceil(1000)));
    format!("{}{}", last.state.word(), warm.unwrap_or_default())
}

fn age(seconds: u64) -> String {
    match (seconds / 60, seconds / 3600, seconds / 86_400) {
        (minutes, 0, _) => format!("{minutes} min"),
        (_, hours, 0) => format!("{hours} h"),
        (_, _, days) => format!("{days} d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_one_number() {
        assert_eq!(
            [59, 3_600, 86_399, 200_000].map(age),
            ["0 min", "1 h", "23 h", "2 d"]
        );
    }
}

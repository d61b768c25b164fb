//! The prices that count: the operator's own list before the built-in one, read again on request.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;

use super::{ModelPrice, PriceList, PriceListError};

/// Both lists.
#[derive(Debug)]
pub struct Prices {
    bundled: PriceList,
    own: ArcSwapOption<PriceList>,
    path: Option<PathBuf>,
}

/// Why the operator's list is none.
#[derive(Debug, thiserror::Error)]
pub enum NoPrices {
    #[error("read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` is no price list")]
    List {
        path: PathBuf,
        #[source]
        source: PriceListError,
    },
}

impl Prices {
    /// The built-in list alone.
    pub fn bundled() -> Self {
        Self {
            bundled: PriceList::bundled(),
            own: ArcSwapOption::empty(),
            path: None,
        }
    }

    /// The operator's list in this file, if there is one, before the built-in one.
    pub fn with_own(path: Option<PathBuf>) -> Result<Self, NoPrices> {
        let prices = Self {
            path,
            ..Self::bundled()
        };
        prices.read_again()?;
        Ok(prices)
    }

    /// Reads the file again; what was read before stays if that fails.
    pub fn read_again(&self) -> Result<(), NoPrices> {
        if let Some(path) = &self.path {
            self.own.store(Some(Arc::new(read(path)?)));
        }
        Ok(())
    }

    /// See [`PriceList::find`].
    pub fn find(&self, provider: &str, model: &str) -> Option<ModelPrice> {
        let own = self.own.load();
        let own = own.as_ref().and_then(|list| list.find(provider, model));
        own.or_else(|| self.bundled.find(provider, model)).cloned()
    }
}

fn read(path: &Path) -> Result<PriceList, NoPrices> {
    let bytes = fs::read(path).map_err(|source| NoPrices::Read {
        path: path.to_owned(),
        source,
    })?;
    let list = PriceList::parse(&bytes).map_err(|source| NoPrices::List {
        path: path.to_owned(),
        source,
    })?;
    let left_out = list.left_out();
    tracing::info!(
        models = list.len(),
        unpriced = left_out.unpriced,
        refused = left_out.refused,
        "the operator's prices are read"
    );
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{price::Terms, usage::Usage};

    #[test]
    fn the_operators_list_goes_before_the_built_in_one_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prices.json");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write(
            r#"{"gpt-4o-mini": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.000001, "output_cost_per_token": 0.000001}}"#,
        );
        let prices = Prices::with_own(Some(path.clone())).unwrap();
        let cost = |model| {
            let usage = Usage {
                input: 1,
                ..Usage::default()
            };
            let price = prices.find("openai", model)?;
            Some(price.cost(&usage, &Terms::default()).0)
        };
        assert_eq!(cost("gpt-4o-mini"), Some(1_000_000));
        assert_eq!(cost("gpt-4o"), Some(2_500_000));
        write("nonsense");
        assert!(prices.read_again().is_err());
        assert_eq!(cost("gpt-4o-mini"), Some(1_000_000));
        write(
            r#"{"gpt-4o-mini": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.000002, "output_cost_per_token": 0.000001}}"#,
        );
        prices.read_again().unwrap();
        assert_eq!(cost("gpt-4o-mini"), Some(2_000_000));
        assert!(Prices::with_own(Some(folder.path().join("none"))).is_err());
    }
}

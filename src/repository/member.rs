//! Which images a member of a virtual repository answers for. Pure.

use crate::globs::Globs;
use crate::oci::Name;

/// Image patterns: what is included, less what is excluded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Empty: everything.
    pub include: Globs,
    /// What is kept out, included or not.
    pub exclude: Globs,
}

impl Filter {
    /// Whether the member is asked for this image.
    pub fn takes(&self, name: &Name) -> bool {
        let name = name.as_str();
        (self.include.is_empty() || self.include.is_match(name)) && !self.exclude.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_less_excluded() {
        let filter = |include: &[&str], exclude: &[&str]| Filter {
            include: Globs::parse(include).unwrap(),
            exclude: Globs::parse(exclude).unwrap(),
        };
        let takes = |filter: &Filter, name: &str| filter.takes(&Name::parse(name).unwrap());
        assert!(takes(&Filter::default(), "a/b"));
        let library = filter(&["library/**"], &[]);
        assert!(takes(&library, "library/nginx") && takes(&library, "library/a/b"));
        assert!(!takes(&library, "team/app") && !takes(&library, "xlibrary/a"));
        let others = filter(&[], &["team/**", "secret"]);
        assert!(takes(&others, "library/nginx") && takes(&others, "secrets"));
        assert!(!takes(&others, "team/app") && !takes(&others, "secret"));
        assert!(!takes(&filter(&["team/**"], &["team/a"]), "team/a"));
        assert!(
            !takes(&filter(&["*"], &[]), "a/b"),
            "a star is one component"
        );
    }
}

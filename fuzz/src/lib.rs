//! Properties of the pure parsers, for the fuzz targets.

pub mod checks;

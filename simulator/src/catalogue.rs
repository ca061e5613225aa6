//! The models a simulated fleet is made of.

use crate::draw::Draw;

/// How a model talks to the mobile network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cellular {
    None,
    Single,
    Dual,
}

/// A model as Apple's answers describe it.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) family: &'static str,
    pub(crate) name: &'static str,
    pub(crate) product_type: &'static str,
    pub(crate) capacities: &'static [&'static str],
    pub(crate) colors: &'static [&'static str],
    pub(crate) part: &'static str,
    pub(crate) cellular: Cellular,
    pub(crate) ethernet_ports: u64,
    /// How many of a hundred and some devices are of this model.
    pub(crate) share: u64,
}

/// Draws a model by its share.
pub(crate) fn model(draw: &mut Draw) -> (u64, &'static Model) {
    let mut left = draw.below(MODELS.iter().map(|model| model.share).sum());
    for (number, model) in MODELS.iter().enumerate() {
        if left < model.share {
            return (number as u64, model);
        }
        left -= model.share;
    }
    (0, &MODELS[0])
}

macro_rules! models {
    ($($family:literal $name:literal $product:literal $capacities:tt $colors:tt $part:literal $cellular:ident $ports:literal $share:literal;)+) => {
        &[$(Model {
            family: $family, name: $name, product_type: $product, capacities: &$capacities, colors: &$colors,
            part: $part, cellular: Cellular::$cellular, ethernet_ports: $ports, share: $share,
        }),+]
    };
}

// Colors in Apple's several spellings, as clients of the API have seen them.
#[rustfmt::skip]
const MODELS: &[Model] = models! {
    "iPhone" "iPhone 13" "iPhone14,5" ["128GB", "256GB"] ["MIDNIGHT", "STARLIGHT", "BLUE"] "MLPF3" Dual 0 8;
    "iPhone" "iPhone SE (3rd generation)" "iPhone14,6" ["64GB", "128GB"] ["MIDNIGHT", "RED"] "MMXF3" Dual 0 6;
    "iPhone" "iPhone 14" "iPhone14,7" ["128GB", "256GB"] ["MIDNIGHT", "PURPLE"] "MPUF3" Dual 0 8;
    "iPhone" "iPhone 15" "iPhone15,4" ["128GB", "256GB", "512GB"] ["BLACK", "BLUE", "PINK"] "MTP03" Dual 0 10;
    "iPhone" "iPhone 15 Pro" "iPhone16,1" ["128GB", "256GB", "1TB"] ["NATURAL_TITANIUM", "BLUE_TITANIUM"] "MTV13" Dual 0 6;
    "iPhone" "iPhone 16e" "iPhone17,5" ["128GB"] ["BLACK", "WHITE"] "MD1Q4" Dual 0 5;
    "iPad" "iPad (9th generation)" "iPad12,1" ["64GB", "256GB"] ["SPACE_GRAY", "SILVER"] "MK2K3" None 0 9;
    "iPad" "iPad (10th generation)" "iPad13,18" ["64GB", "256GB"] ["BLUE", "SILVER", "PINK"] "MPQ13" None 0 8;
    "iPad" "iPad Air 13-inch (M2) Wi-Fi + Cellular" "iPad14,11" ["128GB", "256GB"] ["BLUE", "SPACE GRAY"] "MV6Q3" Single 0 4;
    "iPad" "iPad Pro 11-inch (M4)" "iPad16,3" ["256GB", "512GB"] ["SPACEBLACK", "SILVER"] "MVV83" None 0 3;
    "iPad" "iPad" "iPad3,1" ["16GB", "32GB"] ["BLACK"] "MD328" None 0 1;
    "Mac" "MacBook Air 13\"" "Mac15,12" ["256GB", "512GB"] ["MIDNIGHT", "STARLIGHT", "SPACE GRAY"] "MRXN3" None 0 12;
    "Mac" "MacBook Air 15\"" "Mac15,13" ["256GB", "512GB"] ["MIDNIGHT", "SILVER"] "MRYU3" None 0 4;
    "Mac" "MacBook Pro 14\"" "Mac15,3" ["512GB", "1TB"] ["SPACE_BLACK", "SILVER"] "Z1AU" None 0 9;
    "Mac" "MacBook Pro 16\"" "Mac15,7" ["512GB", "1TB", "2TB"] ["SPACE_BLACK", "SILVER"] "Z1AF" None 0 4;
    "Mac" "iMac 24\"" "Mac15,5" ["256GB", "512GB"] ["SILVER", "BLUE"] "MQRR3" None 1 3;
    "Mac" "Mac mini" "Mac16,10" ["256GB", "512GB"] ["SILVER"] "MU9D3" None 1 4;
    "Mac" "Mac Studio" "Mac14,13" ["512GB", "1TB"] ["SILVER"] "MQH73" None 2 1;
    "AppleTV" "Apple TV 4K (3rd generation)" "AppleTV14,1" ["64GB", "128GB"] ["BLACK"] "MN873" None 1 3;
    "Watch" "Apple Watch Series 10 (GPS)" "Watch7,9" ["64GB"] ["JET_BLACK", "SILVER"] "MWWF3" None 0 2;
    "Vision" "Apple Vision Pro" "RealityDevice14,1" ["256GB", "512GB"] [""] "MQL93" None 0 1;
};

/// Names of device management services, in the order a fleet takes them.
pub(crate) const SERVERS: &[(&str, &str)] = &[
    ("Jamf Cloud", "MDM"),
    ("Intune", "MDM"),
    ("Apple Business Essentials", "APPLE_MDM"),
    ("Mosyle Business", "MDM"),
    ("Devices Added by Apple Configurator", "APPLE_CONFIGURATOR"),
    ("Kandji", "MDM"),
    ("Jamf Pro Retail", "MDM"),
    ("Meraki Systems Manager", "MDM"),
    ("Workspace ONE", "MDM"),
    ("Fleet", "MDM"),
];

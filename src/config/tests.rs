//! Config files, good and bad. A mistake is checked as people see it: line and message.

use std::path::Path;

use super::*;
use crate::access::Entry;
use crate::boot::menu::Transport;

const ONE_IMAGE: &str = "[image.disk]\nfile = \"/srv/disk.img\"\n";

fn config(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|mistake| panic!("{}", shown(mistake, text)))
}

fn shown(mistake: error::Mistake, text: &str) -> String {
    mistake.in_file(Path::new("c.toml"), text).to_string()
}

/// The message about a file with a mistake in it.
fn mistake(text: &str) -> String {
    let mistake = Config::parse(text).unwrap_err();
    let message = shown(mistake, text);
    assert!(!message.contains('\n'), "{message}");
    message
}

#[track_caller]
fn check(text: &str, line: usize, words: &[&str]) {
    let message = mistake(text);
    assert!(
        message.starts_with(&format!("c.toml:{line}: ")),
        "{message}"
    );
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in {message}");
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn an_image_alone_is_enough() {
    let config = config(ONE_IMAGE);
    assert_eq!(
        config.images,
        [ImageSource::of_file(name("disk"), "/srv/disk.img".into())]
    );
    assert_eq!(config.state, None);
    assert_eq!(config.nbd_listen, []);
    assert_eq!(config.herd.default_image, Some(name("disk")));
    assert_eq!(config.herd.default_overlay, None);
    assert_eq!(config.herd.clients, []);
}

#[test]
fn every_key_is_read() {
    let text = r#"
        state = "/var/lib/cowherd"
        [nbd]
        listen = ["0.0.0.0:10809", "unix:/run/nbd"]
        [image.arch]
        file = "/srv/arch.img"
        [image.disk]
        file = "/srv/disk.img"
        [defaults]
        image = "arch"
        overlay = "ephemeral"
        [client.studio-3]
        mac = "52:54:00:77:00:10"
        address = "10.77.0.10"
        image = "disk"
        overlay = "persistent"
        [client.kiosk]
        overlay = "readonly"
    "#;
    let config = config(text);
    assert_eq!(config.state, Some("/var/lib/cowherd".into()));
    assert_eq!(config.nbd_listen.len(), 2);
    assert_eq!(config.images.len(), 2);
    assert_eq!(config.herd.default_image, Some(name("arch")));
    assert_eq!(config.herd.default_overlay, Some(Keep::Ephemeral));
    let [kiosk, studio] = &config.herd.clients[..] else {
        panic!("two clients");
    };
    assert_eq!(
        (&kiosk.name, kiosk.overlay),
        (&name("kiosk"), Some(Keep::ReadOnly))
    );
    assert_eq!(studio.mac, Some("52:54:00:77:00:10".parse().unwrap()));
    assert_eq!(studio.address, Some([10, 77, 0, 10].into()));
    assert_eq!(studio.image, Some(name("disk")));
    assert_eq!(studio.overlay, Some(Keep::Persistent));
}

#[test]
fn generations_have_a_file_each() {
    let config = config(
        r#"
        [image.arch]
        file = "/srv/arch-3.img"
        generation = 3
        older = { 1 = "/srv/arch-1.img", 2 = "/srv/arch-2.img" }
    "#,
    );
    let [arch] = &config.images[..] else {
        panic!("one image");
    };
    assert_eq!(arch.current, 3);
    let files = (1..=3).map(|n| (n, format!("/srv/arch-{n}.img").into()));
    assert_eq!(arch.files, files.collect());
}

#[test]
fn what_is_not_older_is_refused() {
    let file = |older: &str| format!("{ONE_IMAGE}generation = 2\nolder = {{ {older} }}\n");
    check(&file("2 = \"/b\""), 4, &["2 is not older", "current"]);
    check(&file("3 = \"/b\""), 4, &["3 is not older"]);
    for bad in ["0", "01", "one"] {
        check(
            &file(&format!("{bad} = \"/b\"")),
            4,
            &["generation", "leading"],
        );
    }
    check(&format!("{ONE_IMAGE}generation = 0\n"), 3, &["nonzero"]);
}

#[test]
fn every_list_of_who_may_is_read() {
    let config = config(
        r#"
        [nbd]
        allow = ["10.0.0.0/8", "unix"]
        deny = ["@b"]
        [image.disk]
        file = "/srv/disk.img"
        allow = ["10.0.0.0/24"]
        deny = ["10.0.0.9"]
        [client.a]
        address = "10.0.0.1"
        allow = ["::1"]
    "#,
    );
    let shown = |entries: &[Entry]| entries.iter().map(Entry::to_string).collect::<Vec<_>>();
    let rules = config.herd.access;
    assert_eq!(shown(&rules.everywhere.allow), ["10.0.0.0/8", "unix"]);
    assert_eq!(shown(&rules.everywhere.deny), ["@b"]);
    let image = &rules.images[&name("disk")];
    assert_eq!(shown(&image.list.allow), ["10.0.0.0/24"]);
    assert_eq!(shown(&image.list.deny), ["10.0.0.9"]);
    let client = &rules.clients[&name("a")];
    assert_eq!(client.address, Some([10, 0, 0, 1].into()));
    assert_eq!(shown(&client.allow), ["::1"]);
}

const TLS: &str = "[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n";

#[test]
fn tls_is_required_unless_it_is_said_to_be_otherwise() {
    let need = |mode: &str| {
        config(&format!("{ONE_IMAGE}{TLS}{mode}"))
            .tls
            .map(|tls| tls.need)
    };
    assert_eq!(config(ONE_IMAGE).tls, None);
    assert_eq!(need(""), Some(TlsNeed::Required));
    assert_eq!(need("mode = \"selective\"\n"), Some(TlsNeed::Selective));
    assert_eq!(need("mode = \"off\"\n"), None);
    check(
        &format!("{ONE_IMAGE}[tls]\nkey = \"/k\"\n"),
        3,
        &["`certificate`"],
    );
}

#[test]
fn what_needs_tls_needs_to_be_told_how() {
    let image = format!("{ONE_IMAGE}tls = true\n");
    check(&image, 3, &["`tls`", "[tls]"]);
    assert!(config(&format!("{image}{TLS}")).herd.access.images[&name("disk")].tls);
    let off = format!("{image}{TLS}mode = \"off\"\n");
    check(&off, 3, &["`tls`", "[tls]"]);
    config(&format!("{ONE_IMAGE}tls = false\n"));
}

#[test]
fn who_must_show_a_certificate_needs_somebody_who_signs_it() {
    let client = format!("{ONE_IMAGE}[client.a]\ncertificate = true\n{TLS}");
    check(&client, 4, &["`client_ca`", "[tls]"]);
    let config = config(&format!("{client}client_ca = \"/ca\"\n"));
    assert!(config.herd.access.clients[&name("a")].certificate);
    assert_eq!(config.tls.unwrap().files.client_ca, Some("/ca".into()));
}

#[test]
fn a_client_is_not_called_what_an_address_is_called() {
    for name in ["10-0-0-1", "0--1", "local"] {
        let text = format!("{ONE_IMAGE}[client.{name}]\n");
        check(&text, 3, &[name, "by their address"]);
    }
}

#[test]
fn an_unknown_key_is_an_error_at_its_line() {
    check("stat = \"/a\"\n", 1, &["unknown field `stat`", "`state`"]);
    check(
        &format!("{ONE_IMAGE}fil = \"/a\"\n"),
        3,
        &["unknown field `fil`"],
    );
    check(&format!("{ONE_IMAGE}\n[nbd]\nport = 1\n"), 5, &["`port`"]);
    check(&format!("{ONE_IMAGE}[clients.a]\n"), 3, &["`clients`"]);
}

#[test]
fn what_is_no_toml_is_an_error_at_its_line() {
    check("[image.disk]\nfile = \"/srv\n", 2, &[]);
    check(&format!("{ONE_IMAGE}{ONE_IMAGE}"), 3, &["duplicate"]);
}

#[test]
fn a_bad_value_is_an_error_that_shows_it() {
    check(
        &format!("{ONE_IMAGE}[nbd]\nlisten = [\"a:1\", \"b\"]\n"),
        4,
        &["\"b\"", "port"],
    );
    check(
        &format!("{ONE_IMAGE}[client.a]\nmac = \"52:54\"\n"),
        4,
        &["52:54", "hex"],
    );
    check(
        &format!("{ONE_IMAGE}[client.a]\naddress = \"10.0.0\"\n"),
        4,
        &["10.0.0"],
    );
    check(
        &format!("{ONE_IMAGE}deny = [\"10.0.0.1/8\"]\n"),
        3,
        &["10.0.0.1/8", "bits"],
    );
    check(
        &format!("{ONE_IMAGE}[client.a]\noverlay = \"kept\"\n"),
        4,
        &["kept", "`persistent`"],
    );
    check(
        &format!("{ONE_IMAGE}[client.12]\n"),
        3,
        &["\"12\"", "numeric"],
    );
    check(&format!("{ONE_IMAGE}[client.\"a/b\"]\n"), 3, &["a/b"]);
    check("state = 1\n", 1, &["string"]);
}

#[test]
fn an_image_needs_its_file() {
    check("\n[image.disk]\n", 2, &["missing field `file`"]);
}

#[test]
fn without_any_image_there_is_nothing_to_serve() {
    check("state = \"/a\"\n", 1, &["no image", "[image.disk]"]);
}

#[test]
fn with_several_images_one_must_be_the_default() {
    let two = format!("{ONE_IMAGE}[image.b]\nfile = \"/b\"\n");
    check(&two, 1, &["several images", "[defaults]"]);
    config(&format!("{two}[defaults]\nimage = \"b\"\n"));
}

#[test]
fn an_image_that_is_not_there_is_an_error() {
    check(
        &format!("{ONE_IMAGE}[defaults]\nimage = \"b\"\n"),
        4,
        &["[image.b]"],
    );
    check(
        &format!("{ONE_IMAGE}[client.a]\nimage = \"b\"\n"),
        4,
        &["[image.b]"],
    );
}

#[test]
fn two_clients_share_nothing_that_tells_them_apart() {
    let address = "[client.a]\naddress = \"10.0.0.1\"\n[client.b]\naddress = \"10.0.0.1\"\n";
    check(
        &format!("{ONE_IMAGE}{address}"),
        6,
        &["10.0.0.1", "client a"],
    );
    let mac = "[client.a]\nmac = \"2:0\"\n".replace("2:0", "02:00:00:00:00:01");
    let both = format!("{ONE_IMAGE}{mac}{}", mac.replace("client.a", "client.b"));
    check(&both, 6, &["02:00:00:00:00:01", "client a"]);
}

#[test]
fn a_kernel_is_named_with_what_finds_its_root() {
    let text = format!(
        "{ONE_IMAGE}kernel = \"/boot/vmlinuz\"\ninitrd = [\"boot/a\", \"boot/b\"]\n\
         initramfs = \"initramfs-tools\"\ncmdline = \"quiet  splash\"\n"
    );
    let config = Config::parse(&text).unwrap();
    let boot = config.images[0].boot.clone().unwrap();
    let inside = |path: &str| BootFile::Inside(path.to_owned());
    assert_eq!(boot.kernel, inside("boot/vmlinuz"));
    assert_eq!(boot.initrds, [inside("boot/a"), inside("boot/b")]);
    assert_eq!(boot.initramfs, Initramfs::InitramfsTools);
    assert_eq!(boot.words, ["quiet", "splash"]);
    check(&format!("{ONE_IMAGE}kernel = \"k\"\n"), 3, &["`initramfs`"]);
    check(&format!("{ONE_IMAGE}initrd = \"i\"\n"), 3, &["`kernel`"]);
    check(
        &format!("{ONE_IMAGE}cmdline = \"a'b\"\n"),
        3,
        &["command line"],
    );
    check(&format!("{ONE_IMAGE}kernel = \"../k\"\n"), 3, &["`..`"]);
}

#[test]
fn a_kernel_can_be_a_file_of_the_host() {
    let text = format!(
        "{ONE_IMAGE}kernel = \"host:/srv/vmlinuz\"\ninitrd = [\"boot/a\", \"host:/srv/b\"]\n\
         initramfs = \"dracut\"\n"
    );
    let config = Config::parse(&text).unwrap();
    let boot = config.images[0].boot.clone().unwrap();
    let of_host = |path: &str| BootFile::OfHost(PathBuf::from(path));
    assert_eq!(boot.kernel, of_host("/srv/vmlinuz"));
    let initrds = [BootFile::Inside("boot/a".to_owned()), of_host("/srv/b")];
    assert_eq!(boot.initrds, initrds);
    let relative = format!("{ONE_IMAGE}kernel = \"host:vmlinuz\"\ninitramfs = \"dracut\"\n");
    check(&relative, 3, &["host:/srv/boot/vmlinuz"]);
}

/// Where TFTP is served, then HTTP, by tables of a file.
fn listens(tables: &str) -> Vec<Listen> {
    let config = Config::parse(&format!("{ONE_IMAGE}{tables}")).unwrap();
    let tftp = config.tftp.map(|tftp| tftp.listen);
    let http = config.http.map(|http| http.listen);
    tftp.into_iter().chain(http).collect()
}

fn at(addresses: &[&str]) -> Listen {
    let addresses = addresses.iter().map(|text| text.parse().unwrap());
    Listen::At(addresses.collect())
}

#[test]
fn a_list_without_an_address_is_no_place_to_listen_at() {
    for table in ["nbd", "tftp", "http", "admin"] {
        let text = format!("{ONE_IMAGE}[{table}]\nlisten = []\n");
        check(&text, 4, &["`listen` is empty", "leave it out"]);
    }
}

#[test]
fn files_are_served_where_the_file_says() {
    let one = "[tftp]\nlisten = \"10.77.0.1:69\"";
    assert_eq!(listens(one), [at(&["10.77.0.1:69"])]);
    let two = "[tftp]\nlisten = [\"10.77.0.1:69\", \"127.0.0.1:6969\"]";
    assert_eq!(listens(two), [at(&["10.77.0.1:69", "127.0.0.1:6969"])]);
    let http = "[network]\ninterface = \"lan0\"\n[http]\nlisten = \"10.77.0.1:8080\"";
    assert_eq!(listens(http), [at(&["10.77.0.1:8080"])]);
}

#[test]
fn files_are_served_on_the_interfaces_of_the_file_or_where_it_names_none_everywhere() {
    let all = [at(&["0.0.0.0:69"]), at(&["0.0.0.0:80"])];
    assert_eq!(listens("[tftp]\n[http]\n"), all);
    let tables = "[network]\ninterface = [\"lan0\", \"lan1\"]\n[tftp]\n[http]\n";
    let network = NetworkConfig {
        interfaces: vec!["lan0".to_owned(), "lan1".to_owned()],
        address: None,
    };
    let on = |port| Listen::OnInterfaces(network.clone(), port);
    assert_eq!(listens(tables), [on(69), on(80)]);
    let tables = "[network]\naddress = \"10.77.0.1/24\"\n[tftp]\n[http]\n";
    assert_eq!(
        listens(tables),
        all,
        "an address alone is where machines find us"
    );
}

#[test]
fn kernels_by_http_need_http_on_the_port_of_boot_loaders() {
    let menu = "[defaults.menu]\ntransport = \"http\"\n";
    let served = config(&format!("{ONE_IMAGE}{menu}[http]\n"));
    assert_eq!(served.herd.default_menu.transport, Some(Transport::Http));
    for http in ["", "[http]\nlisten = \"10.77.0.1:8080\"\n"] {
        check(
            &format!("{ONE_IMAGE}{menu}{http}"),
            4,
            &["`transport`", "port 80"],
        );
    }
    let unknown = menu.replace("http", "ftp");
    check(&format!("{ONE_IMAGE}{unknown}"), 4, &["tftp or http"]);
}

#[test]
fn a_grub_out_of_the_image_is_that_of_machines_that_boot_from_it() {
    let boot = "kernel = \"vmlinuz\"\ninitramfs = \"dracut\"\n";
    let from = |grub: &str| {
        let config = config(&format!("{ONE_IMAGE}{boot}{grub}"));
        config.images[0].boot.clone().unwrap().grub
    };
    assert_eq!(from("grub = \"image\"\n"), GrubFrom::Image);
    assert_eq!(from("grub = \"host\"\n"), GrubFrom::Host);
    assert_eq!(from(""), GrubFrom::Host);
    check(
        &format!("{ONE_IMAGE}grub = \"image\"\n"),
        3,
        &["`grub` needs a `kernel`"],
    );
}

#[test]
fn the_directory_of_files_is_one_whichever_table_names_it() {
    let root = |tables: &str| Config::parse(&format!("{ONE_IMAGE}{tables}")).unwrap().root;
    let there = Some(PathBuf::from("/srv/tftp"));
    assert_eq!(root("[tftp]\nroot = \"/srv/tftp\"\n[http]\n"), there);
    assert_eq!(root("[tftp]\n[http]\nroot = \"/srv/tftp\"\n"), there);
    assert_eq!(root("[tftp]\n[http]\n"), None);
    check(
        &format!("{ONE_IMAGE}[tftp]\nroot = \"/a\"\n[http]\nroot = \"/b\"\n"),
        6,
        &["`root` in [tftp]"],
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::read(Path::new("/nonexistent/c.toml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/c.toml"), "{error}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in "(\\PC|\n|[\\[\\]a=.\"\n]){0,60}") {
        if let Err(mistake) = Config::parse(&text) {
            proptest::prop_assert!(!shown(mistake, &text).contains('\n'));
        }
    }
}

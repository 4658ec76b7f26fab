//! Who waits to be read: connections to a port whose bytes nobody has taken, by the kernel's table of TCP sockets.

use std::net::SocketAddr;

/// How many connections that came in at `address` have sent something that is not read. 0 if the kernel does not say.
pub(crate) fn count(address: SocketAddr) -> usize {
    let table = if address.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    std::fs::read_to_string(table).map_or(0, |text| count_in(&text, address.port()))
}

/// A line is `sl local remote state tx_queue:rx_queue …` in hexadecimal digits.
fn count_in(table: &str, port: u16) -> usize {
    let is_unread = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (_, local_port) = local.rsplit_once(':')?;
        let (_, unread) = queues.split_once(':')?;
        // Established, and closed by the client alone; a listener counts its queue there.
        let is_open = matches!(state, "01" | "08");
        Some(is_open && u16::from_str_radix(local_port, 16) == Ok(port) && unread.bytes().any(|digit| digit != b'0'))
    };
    table.lines().skip(1).filter(|line| is_unread(line) == Some(true)).count()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_open_connections_of_the_port_with_unread_bytes_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000\n\
            1: 0100007F:1F90 0100007F:C001 01 00000000:00000012 00:00000000\n\
            2: 0100007F:1F90 0100007F:C002 01 00000000:00000000 00:00000000\n\
            3: 0100007F:1F90 0100007F:C003 08 00000000:00000001 00:00000000\n\
            4: 0100007F:C001 0100007F:1F90 01 00000000:00000012 00:00000000\n";
        assert_eq!(count_in(table, 8080), 2);
        assert_eq!(count_in(table, 80), 0);
    }

    #[test]
    fn the_kernel_tells_of_a_connection_that_nobody_reads() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            // A host may have no IPv6.
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            let _server = listener.accept().unwrap();
            assert_eq!(count(address), 0);
            client.write_all(b"x").unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while count(address) != 1 {
                assert!(std::time::Instant::now() < deadline, "{host}");
            }
        }
    }
}

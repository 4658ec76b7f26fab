//! What the kernel says of this process's memory.

/// Memory as the kernel counts it: what the allocator keeps beside what was asked for is in it.
pub fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux tells every process its memory");
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB")?.trim().parse().ok());
    kibibytes.map(|kibibytes: usize| kibibytes * 1024).expect("the resident memory is among it, in kB")
}

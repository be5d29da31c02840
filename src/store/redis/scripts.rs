//! What must happen in Redis as one: each a Lua script, which Redis runs without anything in between, sent by
//! its digest. All keys of a script are named, and of one slot.

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

/// A script and its digest.
pub(super) struct Script {
    code: String,
    digest: redis::Script,
}

/// All of them.
pub(super) struct Scripts {
    /// Stores an entry, unless a newer one of its key is there, or one encrypted under a key that this replica does
    /// not have: one with a wrong key must not take the others' entries away. Keys: entry, hit counts, index, and where it has an
    /// embedding the index of entries without. Arguments: the id, the entry's life in milliseconds, a random number
    /// below 256, the embedding or nothing, `created_at`, the ids of the keys it has, then fields and values. Gives the number of entries in the
    /// index and the entry's version there, zeros where it was not stored.
    ///
    /// The version of an entry in its index is the server's time in microseconds plus the random number, and
    /// more than any before it: a replica that still finds the version of an entry it once saw knows that no
    /// write before that was lost.
    pub(super) put: Script,
    /// Adds an embedding to an entry that is still the one it was made for. Keys: entry, index, and the index of
    /// entries without an embedding. Arguments: the id, the entry's `created_at`, a random number below 256, the
    /// embedding. Gives what `put` gives, zeros where the entry is another by now.
    pub(super) place: Script,
    /// Adds an observation to an entry that is still the one it was made of. Keys: entry. Arguments: the entry's
    /// `created_at`, the observation as sealed, the most bytes kept. Gives 1, or 0 where the entry is another by now.
    pub(super) observe: Script,
    /// Writes fields of an entry that is still the one they were made of. Keys: entry. Arguments: the entry's
    /// `created_at`, then fields and values. Gives 1, or 0 where the entry is another by now.
    pub(super) amend: Script,
    /// Takes out of an index those whose entries are gone or no longer belong there. Keys: index, hit counts, then
    /// the entries. Arguments: the partition, or nothing for the index of entries without an embedding, then their
    /// ids. Gives how many.
    pub(super) tidy: Script,
    /// Agrees upon a secret of 32 bytes. Key: its name. Argument: what to take where there is none. Gives the one
    /// in force.
    pub(super) agree: Script,
    /// Counts hits. Keys: hit counts. Arguments: how long they are kept in milliseconds, then ids and numbers.
    pub(super) hits: Script,
}

/// Makes way for a value of a type where one of another is; puts a member into an index under a new version, and keeps
/// the index for as long as the entry.
const COMMON: &str = r"
local function clear(key, kind)
  local there = redis.call('TYPE', key)['ok']
  if there ~= kind and there ~= 'none' then redis.call('UNLINK', key) end
end
local function index(key, id, life, random)
  clear(key, 'zset')
  local now = redis.call('TIME')
  local version = tonumber(now[1]) * 1000000 + tonumber(now[2])
  local top = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  if top[2] and tonumber(top[2]) >= version then version = tonumber(top[2]) + 1 end
  version = version + tonumber(random)
  redis.call('ZADD', key, string.format('%.0f', version), id)
  if redis.call('PTTL', key) < tonumber(life) then redis.call('PEXPIRE', key, life) end
  return {redis.call('ZCARD', key), string.format('%.0f', version)}
end
";

// The first write of each is one that a full Redis may refuse: once a script has written, it is let go on. (Where a key
// holds what it must not, that is removed before.)
const PUT: &str = r"
local fields = {}
for i = 7, #ARGV do fields[#fields + 1] = ARGV[i] end
clear(KEYS[1], 'hash')
local there = tonumber(redis.call('HGET', KEYS[1], 'created_at') or '')
if there and there > tonumber(ARGV[5]) then return {0, '0'} end
local sealed = there and redis.call('HGET', KEYS[1], 'metadata')
if sealed and string.byte(sealed) == 1 then
  local known = false
  for at = 1, #ARGV[6], 8 do known = known or string.sub(ARGV[6], at, at + 7) == string.sub(sealed, 2, 9) end
  if not known then return {0, '0'} end
end
redis.call('HSET', KEYS[1], unpack(fields))
if there ~= tonumber(ARGV[5]) then redis.call('HDEL', KEYS[1], 'evidence') end
if ARGV[4] == '' then redis.call('HDEL', KEYS[1], 'embedding')
else redis.call('HSET', KEYS[1], 'embedding', ARGV[4]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
clear(KEYS[2], 'hash')
redis.call('HDEL', KEYS[2], ARGV[1])
if KEYS[4] then
  clear(KEYS[4], 'zset')
  redis.call('ZREM', KEYS[4], ARGV[1])
end
return index(KEYS[3], ARGV[1], ARGV[2], ARGV[3])
";

const PLACE: &str = r"
if redis.call('HGET', KEYS[1], 'created_at') ~= ARGV[2] then return {0, '0'} end
local life = redis.call('PTTL', KEYS[1])
if life < 1 then return {0, '0'} end
redis.call('HSET', KEYS[1], 'embedding', ARGV[4])
clear(KEYS[3], 'zset')
redis.call('ZREM', KEYS[3], ARGV[1])
return index(KEYS[2], ARGV[1], string.format('%.0f', life), ARGV[3])
";

// Observations are of one length and begin with a '+' where replies agreed. For want of room the oldest agreement goes,
// and only where there is none the oldest of all, as in the store in process.
const OBSERVE: &str = r"
if redis.call('HGET', KEYS[1], 'created_at') ~= ARGV[1] then return 0 end
local size = #ARGV[2]
local all = redis.call('HGET', KEYS[1], 'evidence') or ''
if #all % size ~= 0 then all = '' end
for at = 1, #all, size do
  if string.sub(all, at, at + size - 1) == ARGV[2] then return 1 end
end
all = all .. ARGV[2]
while #all > tonumber(ARGV[3]) do
  local least = 1
  for at = 1, #all, size do
    if string.sub(all, at, at) == '+' then least = at break end
  end
  all = string.sub(all, 1, least - 1) .. string.sub(all, least + size)
end
redis.call('HSET', KEYS[1], 'evidence', all)
return 1
";

const AMEND: &str = r"
if redis.call('HGET', KEYS[1], 'created_at') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
";

// An embedding names its partition in its bytes 18 to 49.
const TIDY: &str = r"
local gone = 0
clear(KEYS[2], 'hash')
for i = 2, #ARGV do
  local field = ARGV[1] == '' and 'response' or 'embedding'
  local value = redis.pcall('HGET', KEYS[i + 1], field)
  if type(value) ~= 'string' or (ARGV[1] ~= '' and string.sub(value, 18, 49) ~= ARGV[1]) then
    gone = gone + redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
return gone
";

const AGREE: &str = r"
local there = redis.call('TYPE', KEYS[1])['ok'] == 'string' and redis.call('GET', KEYS[1])
if there and #there == 32 then return there end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
";

const HITS: &str = r"
clear(KEYS[1], 'hash')
for i = 2, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 0
";

impl Script {
    fn new(code: &str) -> Self {
        Self { code: code.to_owned(), digest: redis::Script::new(code) }
    }
}

impl Scripts {
    /// Whether the server is well and refused a script for what it does: for want of memory, or as a replica.
    pub(super) fn is_refusal(error: &RedisError) -> bool {
        let read_only = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        read_only || error.code() == Some("OOM")
    }

    pub(super) fn new() -> Self {
        Self {
            put: Script::new(&format!("{COMMON}{PUT}")),
            place: Script::new(&format!("{COMMON}{PLACE}")),
            observe: Script::new(OBSERVE),
            amend: Script::new(AMEND),
            tidy: Script::new(&format!("{COMMON}{TIDY}")),
            agree: Script::new(AGREE),
            hits: Script::new(&format!("{COMMON}{HITS}")),
        }
    }
}

/// A script's call: keys and arguments in the order that the script wants, by digest or in full.
#[derive(Default)]
pub(super) struct Call {
    pub(super) keys: Vec<String>,
    pub(super) arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn key(mut self, key: String) -> Self {
        self.keys.push(key);
        self
    }

    pub(super) fn argument(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn by_digest(&self, script: &Script) -> Cmd {
        self.command("EVALSHA", script.digest.get_hash())
    }

    pub(super) fn in_full(&self, script: &Script) -> Cmd {
        self.command("EVAL", &script.code)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut cmd = redis::cmd(name);
        cmd.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        cmd
    }
}

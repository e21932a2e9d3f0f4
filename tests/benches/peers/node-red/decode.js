// Body of the function node behind each read node; TAGS is put in front of it.
const words = msg.payload.data || msg.payload;
const bytes = Buffer.alloc(4);
const values = {};
for (const [tag, kind, offset] of TAGS) {
    if (kind === "u16") {
        values[tag] = words[offset];
    } else if (kind === "i16") {
        values[tag] = (words[offset] << 16) >> 16;
    } else {
        bytes.writeUInt16BE(words[offset + 1], 0);
        bytes.writeUInt16BE(words[offset], 2);
        values[tag] = kind === "i32" ? bytes.readInt32BE(0) : bytes.readFloatBE(0);
    }
}
msg.payload = values;
return msg;

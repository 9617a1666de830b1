package websocket

// AcceptKey answers a Sec-WebSocket-Key, as servers that are not ours do.
func AcceptKey(key string) string { return acceptKey(key) }

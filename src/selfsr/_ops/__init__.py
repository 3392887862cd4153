"""How an operator is registered with torch, how its backend is chosen, compiled and given memory."""

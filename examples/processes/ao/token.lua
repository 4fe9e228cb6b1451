-- A token as scripts for AO write it: globals are its state, handlers answer messages.

local json = require('json')

if not Balances then Balances = { [ao.id] = 1000 } end
if Name ~= 'Points Coin' then Name = 'Points Coin' end
Ticker = Ticker or 'PNTS'
Loads = (Loads or 0) + 1
History = {}
print('loaded')
table.insert(History, 'start')

utils = {
  add = function(a, b) return tonumber(a) + tonumber(b) end
}

function balanceOf(who) return Balances[who] or 0 end

Handlers.add('info', Handlers.utils.hasMatchingTag('Action', 'Info'), function(msg)
  Send({ Target = msg.From, Name = Name, Ticker = Ticker, Loads = tostring(Loads) })
end)

Handlers.add('balance', Handlers.utils.hasMatchingTag('Action', 'Balance'), function(msg)
  local who = msg.Tags.Target or msg.From
  msg.reply({ Balance = tostring(balanceOf(who)), Data = json.encode(Balances) })
  return balanceOf(who)
end)

Handlers.add('transfer', { Action = 'Transfer', Quantity = '%d+' }, function(msg)
  assert(type(msg.Recipient) == 'string', 'Recipient is required!')
  local qty = tonumber(msg.Tags.Quantity)
  if balanceOf(msg.From) < qty then
    msg.reply({ Action = 'Transfer-Error', Error = 'Insufficient Balance!' })
    return
  end
  Balances[msg.From] = balanceOf(msg.From) - qty
  Balances[msg.Recipient] = utils.add(balanceOf(msg.Recipient), qty)
  table.insert(History, msg.Recipient)
  Last = msg.Recipient
end)

Handlers.add('forget', 'Forget', function(msg) Ticker = nil end)

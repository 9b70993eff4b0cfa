# ruff: noqa: E501 - a template stays on one line
"""Chinese passages, each with a question and its answer."""

from random import Random

from make_bundled.corpora.grammar import (
    Grammar,
    Rule,
    between,
    lines,
    number,
    pick,
    shuffled,
    words,
)

LISTS: dict[str, Rule] = {
    "xing": list("王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"),
    "ming1": list("文明志国建伟德永春秋玉雪海云天思子家晓小梦雅静婉佩宏光正世立景元庆博佳俊欣若书凡启怀楚"),
    "ming2": list("华强军平辉杰斌浩宇轩涛峰龙生民清芳兰梅英娟燕玲霞秀琴萍怡琳君安宁远林鹏磊洋涵瑶雯钧泽"),
    "ren": ["{xing}{ming1}{ming2}", "{xing}{ming1}{ming2}", "{xing}{ming2}"],
    "di1": list("青白黄金银石清东西南北长平安永新云龙凤江河临武福宁嘉兴松柳桃梅太大白古高红双"),
    "di2": list("山水河溪江湖泉林原阳川海门桥塘港关岭城田沙浦台坪洲岛"),
    "sheng": words("江苏 浙江 福建 广东 四川 湖南 湖北 河南 河北 山东 山西 陕西 云南 贵州 安徽 江西 甘肃 辽宁 吉林 广西"),
    "guo": words("法国 德国 英国 美国 日本 俄国 意大利 西班牙 荷兰 瑞士 印度 韩国 泰国 巴西 埃及 加拿大"),
    "chao": words("唐朝 宋朝 元朝 明朝 清朝 汉朝 隋朝"),
    "fang": words("东部 西部 南部 北部 中部 东南部 西南部 东北部 西北部"),
    "nian": number(1950, 2015), "jiunian": number(1640, 1879),
    "yue": number(1, 12), "ri": number(1, 28), "ge": number(3, 19), "shi": number(20, 95),
    "bai": number(120, 980, 10), "qian": number(1200, 9800, 100),
    "zhiye": words("""
        画家 作家 诗人 医生 教师 律师 记者 演员 歌手 导演 农民 工程师 科学家 建筑师 摄影师 商人 军人 翻译 编辑 音乐家
        书法家 历史学家 数学家 化学家 植物学家 天文学家 木匠 厨师 飞行员 运动员 教练 护士
    """),
    "xueke": words("""
        数学 物理 化学 生物 历史 地理 文学 哲学 法律 医学 经济 音乐 美术 建筑 农业 天文 语言 教育 体育 机械
        考古 心理 新闻 地质
    """),
    "jianzhu": words("""
        图书馆 博物馆 体育馆 火车站 医院 学校 寺庙 剧院 工厂 公园 大桥 灯塔 古塔 市场 邮局 酒店 电影院 天文台 教堂 书院
        码头 城墙 美术馆 植物园 动物园 飞机场 纪念馆 茶馆
    """),
    "zuowu": words("""
        水稻 小麦 玉米 大豆 棉花 茶叶 苹果 葡萄 橘子 桃子 西瓜 花生 土豆 红薯 甘蔗 荔枝 香蕉 芝麻 油菜 蘑菇 核桃 板栗
        辣椒 白菜 萝卜 竹子
    """),
    "dongwu": words("""
        老虎 狮子 大象 猴子 熊猫 狐狸 兔子 松鼠 鹿 狼 熊 羊 牛 马 骆驼 蛇 乌龟 青蛙 天鹅 燕子 喜鹊 猫头鹰 孔雀 鹤
        鹰 鸽子 蝴蝶 蜜蜂 蜻蜓 鲤鱼 海豚 鲸鱼
    """),
    "zhiwu": words("""
        松树 柳树 竹子 梅花 兰花 菊花 荷花 牡丹 玫瑰 桂花 茶花 桃花 银杏 枫树 杨树 榕树 樱花 百合 水仙 杜鹃 月季
        芦苇 仙人掌 向日葵
    """),
    "yanse": words("红色 黄色 蓝色 绿色 白色 黑色 灰色 紫色 金色 棕色 粉红色 橙色 银色"),
    "wupin": words("""
        瓷器 铜镜 古琴 茶壶 扇子 雨伞 灯笼 毛笔 书信 地图 钟表 相机 家具 玩具 风筝 手表 自行车 钢琴 电视机 收音机 眼镜
        帽子 鞋子 花瓶 石碑 油画 邮票 硬币 雕像 面具 衣服 项链
    """),
    "chanye": words("旅游业 渔业 纺织业 造船业 农业 林业 采矿业 制茶业 酿酒业 印刷业 陶瓷业 电子工业 食品工业 运输业"),
    "maoyang": words("""
        精美 华丽 朴素 古老 独特 精致 典雅 坚固 别致 简单 美观 大方 漂亮 少见 优雅 庄重 壮观 特别 明亮
    """),
    "xingge": words("认真 勇敢 聪明 活泼 严格 谦虚 热情 勤奋 善良 冷静 沉着 幽默 正直 乐观 坚强 大方 耐心"),
    "weidao": words("鲜美 清淡 浓郁 可口 独特 香甜 酸甜 细腻 清香 爽口 醇厚 鲜嫩 开胃"),
    "qixiang": words("温和 湿润 干燥 凉爽 炎热 寒冷 多雨 多风 宜人 晴朗"),
    "bixing": words("深刻 感人 优美 复杂 幽默 朴素 生动 真实 新颖 细腻 简洁 沉重 轻松 浪漫 大胆"),
    "zhuangtai": words("美丽 安静 热闹 遥远 古老 沉默 孤独 温暖 寂寞 神秘 平凡 快乐 明亮 破旧 失落 最后 金色"),
    "cangpin": words("瓷器 铜镜 古琴 扇子 灯笼 毛笔 书信 地图 钟表 邮票 硬币 油画 面具 玉器 字画 古书 石碑 木雕"),
    "jiancai": words("木头 石头 砖 水泥 钢 花岗岩 大理石 竹子 青石 红砖 混凝土"),
    "diaocai": words("石头 青铜 铁 玉 木头 水泥 大理石 铜 白石"),
    "gainian": words("""
        友谊 爱情 战争 和平 自由 家庭 教育 科学 艺术 传统 命运 理想 责任 生命 梦想 健康 环境 历史 信任 勇气 时间
        孤独 幸福 成长
    """),
    "cai": words("""
        牛肉 鸡肉 猪肉 羊肉 豆腐 鱼 虾 鸡蛋 面粉 糯米 白菜 萝卜 蘑菇 土豆 茄子 青椒 竹笋 莲子 红豆 花生
    """),
    "tiaoliao": words("酱油 醋 盐 糖 姜 蒜 葱 辣椒 花椒 香油 料酒 胡椒 芝麻 蜂蜜"),
    "zuofa": words("炒 蒸 煮 炖 烤 炸 煎 拌"),
    "jieri": words("春节 中秋节 端午节 元宵节 清明节 重阳节"),
    "yundong": words("足球 篮球 排球 乒乓球 羽毛球 网球 游泳 田径 体操 围棋 射箭 滑冰 登山 武术 划船"),
    "jijie": words("春天 夏天 秋天 冬天"),
    "xingbie": words("他 她"),
    "timu": ["《{zhuangtai}的{wupin}》", "《{gainian}与{gainian}》", "《{di1}{di2}的{jijie}》",
             "《{zhiye}的{gainian}》", "《{dongwu}和{dongwu}》", "《没有{gainian}的{jijie}》"],
    "difang": ["{di1}{di2}市", "{di1}{di2}县", "{di1}{di2}镇", "{di1}{di2}村"],
    "gongsi": ["{di1}{di2}{hangye}公司", "{ming1}{ming2}{hangye}集团"],
    "hangye": words("实业 工业 制造 贸易 兴业 科技 工艺 发展 民生 联合"),
    "daxue": ["{di1}{di2}大学", "{di1}{di2}师范学院", "{sheng}{xueke}学院", "{di1}{di2}第{shuzi}中学"],
    "shuzi": list("一二三四五六七八九"),
    "chengdu": ["十分", "非常", "相当", "特别", "极为"],
    "kanqilai": ["{chengdu}{maoyang}", "{chengdu}{maoyang}", "既{maoyang}又{maoyang}"],
    "wenbi": ["{chengdu}{bixing}", "{chengdu}{bixing}", "既{bixing}又{bixing}", "不够{bixing}"],
    "kouwei": ["{chengdu}{weidao}", "{weidao}"],
    "zaonian": number(1926, 1949), "huaxiang": ["{chengdu}[清香|浓郁|淡雅|芬芳]", "[清香|浓郁]怡人"],
    "shenchang": number(20, 190, 5), "zuopin": number(1950, 1985), "houlai": number(1986, 2015),
    "huase": words("红色 黄色 白色 紫色 粉红色 蓝色 金色 橙色 淡黄色 深红色"),
    "shengnian": number(1890, 1925), "chengli": number(1880, 1949),
}  # fmt: skip

# kind: (bound names, opening, further sentences, (question, answer) pairs on the opening)
KINDS: dict[str, tuple[dict[str, str], str, list[str], list[tuple[str, str]]]] = {
    "person": (
        {"a": "ren", "b": "zhiye", "c": "difang", "d": "sheng", "e": "shengnian", "f": "daxue", "x": "xingbie"},
        "{a}（{e}年{yue}月{ri}日出生），{d}{c}人，[中国|当代|现代]著名{b}。{x}[早年|年轻时|曾经]在{f}学习{xueke}，[毕业后|后来]成为一名{b}。",
        lines("""
            {zaonian}年，{x}[前往|去]{guo}留学，师从{zhiye}{ren}，研究{xueke}和{xueke}。
            {x}的代表作品有{timu}和{timu}，[其中|前者]被[翻译|改编]成{ge}种语言，受到读者的喜爱。
            {x}从小对{xueke}很有兴趣，父亲是一名{zhiye}，母亲在{jianzhu}工作。
            {zaonian}年，{x}与{zhiye}{ren}结婚，[两人育有{shuzi}个孩子|婚后住在{difang}]。
            评论家{ren}认为，{x}的作品{wenbi}，反映了人们对{gainian}的思考。
            {x}还喜欢{yundong}和收集{p=cangpin}，家里收藏了{bai}多件{p}。
            {nian}年，{x}把自己收藏的{cangpin}捐给了{difang}的{jianzhu}。
            [晚年|退休以后]，{x}回到家乡，在当地的{jianzhu}教孩子们学习{xueke}。
            {nian}年，{x}获得了{guo}颁发的{xueke}奖，是第{shuzi}位获得该奖的中国人。
        """),
        [("{a}是哪里人？", "{d}{c}"), ("{a}出生于哪一年？", "{e}年"), ("{a}的职业是什么？", "{b}"), ("{a}在哪里学习过？", "{f}")],
    ),
    "town": (
        {"a": "difang", "b": "sheng", "c": "fang", "d": "chanye", "e": "zuowu", "f": "qian"},
        "{a}位于{b}{c}，面积{f}平方公里，[人口|常住人口]约{shi}万人。当地[主要|传统]的产业是{d}，[盛产|出产]{e}。",
        lines("""
            {a}气候{qixiang}，年平均气温{ge}度，年降水量{bai}毫米左右。
            {a}历史悠久，早在{chao}就有人在这里居住，当时[主要|大多]以种植{zuowu}为生。
            {nian}年，{a}修建了铁路，[交通|运输]变得更加方便，人口也[逐渐|迅速]增加。
            当地的[寺庙|古塔|书院|茶馆|城墙|石桥|码头|祠堂|戏台]建于{jiunian}年，用{jiancai}建成，样子{kanqilai}，是[当地|附近]最有名的景点。
            每年{yue}月，当地人都会举行{zuowu}节，吸引{bai}多名来自{guo}和{guo}的游客。
            {a}的{wupin}{kanqilai}，[远销|出口到]{guo}等{ge}个国家。
            境内的{di1}{di2}山高{qian}米，山上长满了{zhiwu}，常常可以看到{dongwu}和{dongwu}。
            {nian}年的一场大火烧毁了这里的{jianzhu}，{ge}年以后才重新建成。
            {zhiye}{ren}和{zhiye}{ren}都出生在这里。
        """),
        [("{a}位于哪里？", "{b}{c}"), ("{a}的面积有多大？", "{f}平方公里"), ("{a}主要的产业是什么？", "{d}"), ("{a}出产什么？", "{e}")],
    ),
    "animal": (
        {"a": "yanse", "b": "dongwu", "c": "sheng", "d": "zhiwu", "e": "shenchang", "y": "yanse"},
        "{y}{b}是一种[生活|分布]在{c}[山区|平原|湖边|森林]的{b}，身长约{e}厘米，[最喜欢|主要]吃{d}的[叶子|种子|果实]。",
        lines("""
            它的背部是{yanse}的，腹部是{yanse}的，[看起来|看上去]{kanqilai}。
            {y}{b}一般在[夜里|清晨|黄昏]活动，白天躲在{zhiwu}丛中休息，很难被人发现。
            雌性每年{yue}月[繁殖|生育]，一次可以生{shuzi}个幼崽，由父母共同照顾{ge}个星期。
            由于[环境|森林]受到破坏，{nian}年以后{y}{b}的数量[不断|迅速]减少，现在只剩下{bai}只左右。
            它的天敌是{dongwu}和{dongwu}，遇到危险时会[逃到水里|爬到树上|发出很大的声音]。
            {nian}年，{zhiye}{ren}在{difang}第一次[发现|记录]了这种动物，并写成了{timu}一书。
            在{sheng}的民间故事里，{dongwu}常常[欺骗|帮助]{b}，象征着{gainian}。
            目前，{difang}的动物园里饲养着{ge}只{y}{b}，由{zhiye}{ren}负责照顾。
        """),
        [("{y}{b}分布在哪里？", "{c}"), ("{y}{b}身长多少？", "约{e}厘米"), ("{y}{b}主要吃什么？", "{d}")],
    ),
    "plant": (
        {"a": "zhiwu", "b": "sheng", "c": "huase", "e": "yue", "f": "di1", "g": "di2"},
        "{f}{g}{a}是{b}特有的植物，每年{e}月开花，花朵呈{c}，[气味|香味]{huaxiang}。",
        lines("""
            这种植物高约{ge}米，[喜欢|适合]生长在[阳光充足|阴凉潮湿|土壤肥沃]的地方，[怕冷|耐寒|不怕干旱]。
            古时候，人们用它的[根|叶子|果实]来[治病|染布|泡茶]，{chao}的书里已经有[记载|介绍]。
            它的[根|叶子|果实|种子]可以和{cai}一起{zuofa}着吃，味道{weidao}。
            {nian}年，{zhiye}{ren}把它带到了{guo}，后来在{guo}也有人种植。
            [研究|实验]发现，它对{gainian}和健康都有好处，[因此|所以]很受{zhiye}们的欢迎。
            诗人{ren}写过一首叫{timu}的诗，用{a}来比喻{gainian}。
            {difang}的公园里有一棵{bai}年的老{a}，树下立着一块{diaocai}做的牌子。
            {dongwu}和{dongwu}很喜欢吃它的果实，并把种子带到很远的地方。
        """),
        [("{f}{g}{a}是哪里特有的植物？", "{b}"), ("{f}{g}{a}几月开花？", "{e}月"), ("{f}{g}{a}的花是什么颜色？", "{c}")],
    ),
    "building": (
        {"a": "difang", "b": "jianzhu", "c": "chengli", "d": "ren", "e": "shi", "f": "jiancai"},
        "{a}{b}建于{c}年，由建筑师{d}设计，高{e}米，主要用{f}建成，是{a}最{maoyang}的建筑之一。",
        lines("""
            建造这座{b}一共[用了|花费了]{ge}年时间和{qian}万元，[先后|共]有{bai}多名工人参加。
            {b}里面[陈列|收藏]着{qian}多件文物，其中最{maoyang}的是{chao}的{cangpin}。
            {nian}年，{b}因为[地震|大火|洪水|战争]受到[严重|轻微]的破坏，后来由{ren}[主持|负责]修复。
            大门[前面|左边|右边]有一座{diaocai}做的{dongwu}雕像，是[雕塑家|艺术家|石匠|美术老师]{ren}的作品。
            每到{jieri}，这里都会举行{yundong}比赛和音乐会，有{qian}多人前来参加。
            {b}的屋顶是{yanse}的，墙是{yanse}的，[周围|四周]种着{zhiwu}和{zhiwu}。
            {nian}年起，{b}[免费|正式]对公众开放，[每天|每周]接待游客{bai}人。
            有人[批评|称赞]它的设计{kanqilai}，[与|和]附近的{jianzhu}[很不协调|十分协调]。
        """),
        [("{a}{b}建于哪一年？", "{c}年"), ("{a}{b}是谁设计的？", "{d}"), ("{a}{b}有多高？", "{e}米"), ("{a}{b}主要用什么建成？", "{f}")],
    ),
    "company": (
        {"a": "gongsi", "b": "chengli", "c": "ren", "d": "difang", "e": "wupin", "f": "qian"},
        "{a}成立于{b}年，创办人是{c}，总部设在{d}，主要生产{e}，现有员工{f}人。",
        lines("""
            创办初期，公司只有{shi}名员工，[租用|使用]一间旧[仓库|教室|厂房|民房|茶馆]作为工厂，条件十分简单。
            {nian}年，公司开始向{guo}和{guo}出口{wupin}，当年的收入达到{qian}万元。
            {nian}年，公司收购了{gongsi}，[从此|于是]也开始生产{wupin}。
            由于[管理|经营]不善，{nian}年公司[关闭|出售]了在{difang}的工厂，{bai}名工人失去了工作。
            {ren}担任总经理以后，公司[更加|特别]重视{gainian}和{gainian}，产品的质量{chengdu}[可靠|稳定|出色|优良]。
            公司每年拿出{shi}万元，支持{difang}的{xueke}教育和{yundong}队。
            {nian}年，公司推出了{yanse}的{wupin}，很受{zhiye}和学生的[欢迎|喜爱]。
            现在公司在{guo}、{guo}等国设有{ge}个分公司。
        """),
        [("{a}成立于哪一年？", "{b}年"), ("{a}的创办人是谁？", "{c}"), ("{a}的总部在哪里？", "{d}"), ("{a}主要生产什么？", "{e}"), ("{a}有多少员工？", "{f}人")],
    ),
    "work": (
        {"a": "timu", "b": "zuopin", "c": "ren", "d": "zhiye", "e": "difang", "f": "ren"},
        "{a}是由{c}[导演的电影，于{b}年上映|导演的电视剧，于{b}年播出|编写的话剧，于{b}年首演]，讲述了{e}的{d}{f}[寻找|失去|追求]{gainian}的故事。",
        lines("""
            故事发生在{nian}年的{jijie}，主人公{f}在{jianzhu}里[发现|捡到]了别人留下的{wupin}，生活从此改变。
            {f}的好友是一名{zhiye}，为人{xingge}，[却|但是]因为{gainian}而[离开|失去]了家乡。
            拍摄工作在{sheng}和{guo}进行，一共用了{ge}个月，[花费|投资]{qian}万元。
            评论家{ren}认为这部作品{wenbi}，[但|不过]结尾有些[突然|平淡|悲伤]。
            主题曲由{ren}演唱，歌词[写的是|表达了]{gainian}和{gainian}。
            {houlai}年，它在{guo}[获得|赢得]了最佳[导演|音乐|摄影|编剧|美术|演员]奖，观众超过{qian}万人。
            为了演好{zhiye}这个角色，演员{ren}[专门|特地]到{difang}的{jianzhu}生活了{ge}个星期。
            片中的{wupin}和{cangpin}都是根据{chao}的样子用{diaocai}制作的。
        """),
        [("{a}是哪一年的作品？", "{b}年"), ("{a}的作者是谁？", "{c}"), ("{f}的职业是什么？", "{d}"), ("故事的主人公是谁？", "{f}")],
    ),
    "dish": (
        {"a": "cai", "b": "tiaoliao", "c": "sheng", "d": "difang", "e": "cai", "z": "zuofa", "f": "chao"},
        "{d}{z}{a}是{c}的[传统|特色|家常]菜，据说起源于{f}，主要[材料|原料]是{a}和{e}，调味用的是{b}。",
        lines("""
            制作时，先把{a}[洗净|切成小块|切成薄片]，加入{tiaoliao}和{tiaoliao}，[放置|腌]{shi}分钟。
            然后用[大火|小火]{zuofa}{ge}分钟，[最后|再]放入{tiaoliao}，等到颜色变成{yanse}就可以吃了。
            这道菜味道{kouwei}，[老人|孩子]和{zhiye}都很喜欢，[尤其|特别]适合在{jijie}吃。
            传说{chao}的{zhiye}{ren}路过{d}，吃了这道菜以后[赞不绝口|念念不忘]，从此它就出了名。
            每逢{jieri}，当地人都要做这道菜[招待|感谢]客人，象征着{gainian}。
            {nian}年，厨师{ren}把它带到了{guo}，在那里开了{ge}家饭馆。
            有些地方用{cai}代替{a}，[味道|口感]也{chengdu}{weidao}。
            {nian}年，这道菜被[评为|列为]{c}十大名菜之一。
        """),
        [("{d}{z}{a}起源于什么时候？", "{f}"), ("{d}{z}{a}用什么调味？", "{b}"), ("{d}{z}{a}是哪里的菜？", "{c}"), ("{d}{z}{a}的主要材料是什么？", "{a}和{e}")],
    ),
    "sport": (
        {"a": "difang", "b": "yundong", "c": "chengli", "d": "ren", "e": "shi", "f": "yanse"},
        "{a}{b}队成立于{c}年，第一任教练是{d}，共有队员{e}人，队服为{f}。",
        lines("""
            {nian}年，球队在{guo}举行的比赛中[战胜|击败]了{difang}队，[第{shuzi}次|首次]获得冠军。
            队长{ren}以前是一名{zhiye}，[训练|比赛]时{chengdu}{xingge}，深受队友的[信任|尊敬]。
            {nian}年，由于[伤病|经费不足]，球队[成绩|名次]下降，只得到第{ge}名。
            球队每天在{jianzhu}旁边的场地训练{shuzi}个小时，[风雨无阻|从不间断]。
            为了[培养|选拔]年轻人，球队在{difang}的{ge}所学校开设了{b}课。
            {yue}月{ri}日，球队将[前往|到]{guo}参加{yundong}节的开幕比赛，预计有{qian}名观众。
            [教练|队长]表示，比赛的[关键|重点]是{gainian}和{gainian}，而不是[运气|力量|金钱]。
            球队的[吉祥物|标志]是一只{yanse}的{dongwu}，由{zhiye}{ren}设计。
        """),
        [("{a}{b}队成立于哪一年？", "{c}年"), ("{a}{b}队的教练是谁？", "{d}"), ("{a}{b}队有多少队员？", "{e}人"), ("{a}{b}队的队服是什么颜色？", "{f}")],
    ),
}  # fmt: skip

GRAMMAR = Grammar(LISTS)


def document(rng: Random) -> list[str]:
    """A passage with one or two questions on it, as one row."""
    slots, opening, sentences, questions = KINDS[pick(rng, sorted(KINDS))]
    bound = GRAMMAR.bind(rng, **slots)
    chosen = [opening, *shuffled(rng, sentences)[: between(rng, 3, 5)]]
    passage = "".join(GRAMMAR.expand(template, rng, bound) for template in chosen)
    asked = shuffled(rng, questions)[: between(rng, 1, 2)]
    pairs = "\n".join(
        GRAMMAR.expand(f"问题：{question}\n答案：{answer}", rng, bound)
        for question, answer in asked
    )
    return [f"{passage}\n{pairs}"]
